//! The vocabulary by id: each token's spelling, flat in one string, and what kind of token it is.

use crate::error::{Error, Result};

const PRESENT: u8 = 1;
const SPECIAL: u8 = 2;

/// Tokens 0..len-1; ids may be missing in between.
#[derive(Default)]
pub struct Pieces {
    text: String,
    spans: Vec<(u32, u32)>,
    flags: Vec<u8>,
}

pub struct Piece<'a> {
    pub text: &'a str,
    pub special: bool,
}

impl Pieces {
    /// From (id, text, special) in any order. An id far beyond the number of tokens is refused, since
    /// the table is as long as the largest id.
    pub fn build(mut tokens: Vec<(u32, &str, bool)>) -> Result<Self> {
        tokens.sort_by_key(|token| token.0);
        let largest = tokens.last().map_or(0, |token| token.0 as usize);
        let limit = 2 * tokens.len() + 65536;
        if largest >= limit {
            let count = tokens.len();
            return Err(Error::corrupt(format!(
                "token id {largest} in a vocabulary of {count} tokens: ids must be below {limit}"
            )));
        }
        let bytes: usize = tokens.iter().map(|token| token.1.len()).sum();
        if bytes > u32::MAX as usize {
            return Err(Error::corrupt(format!("{bytes} bytes of vocabulary: over 4 GiB")));
        }
        let mut pieces = Pieces { text: String::with_capacity(bytes), ..Default::default() };
        for (id, text, special) in tokens {
            let id = id as usize;
            let begin = pieces.text.len() as u32;
            pieces.text.push_str(text);
            pieces.spans.resize(id + 1, (0, 0));
            pieces.flags.resize(id + 1, 0);
            pieces.spans[id] = (begin, pieces.text.len() as u32);
            pieces.flags[id] = PRESENT | if special { SPECIAL } else { 0 };
        }
        Ok(pieces)
    }

    pub fn len(&self) -> usize {
        self.spans.len()
    }

    pub fn get(&self, id: i32) -> Option<Piece<'_>> {
        let index = usize::try_from(id).ok()?;
        let flags = *self.flags.get(index)?;
        if flags & PRESENT == 0 {
            return None;
        }
        let (begin, end) = self.spans[index];
        let text = &self.text[begin as usize..end as usize];
        Some(Piece { text, special: flags & SPECIAL != 0 })
    }
}

/// The byte that a SentencePiece byte token ("<0x0A>") stands for.
pub fn byte_of_piece(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// Undoes GPT-2's byte alphabet: printable Latin-1 characters stand for themselves, the other 68
/// bytes for U+0100 onwards, in order (Radford et al. 2019, bytes_to_unicode). None for a character
/// outside the alphabet.
pub fn byte_of_char(c: char) -> Option<u8> {
    match c as u32 {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8), // 0x00..=0x20
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8), // 0x7f..=0xa0
        0x143 => Some(0xad),
        _ => None,
    }
}

/// The bytes of a byte-level piece; a piece with a character outside the alphabet stands for itself.
pub fn push_byte_level(piece: &str, bytes: &mut Vec<u8>) {
    let begin = bytes.len();
    for c in piece.chars() {
        match byte_of_char(c) {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(begin);
                bytes.extend_from_slice(piece.as_bytes());
                return;
            }
        }
    }
}

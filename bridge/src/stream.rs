//! Incremental detokenisation: what `TextTokenizer::decode` would say of all tokens, as early as it
//! is certain. Constant work and memory a token, but for decoders that are known only as a whole.

use crate::error::Result;
use crate::pieces::{byte_of_piece, push_byte_level};
use crate::tokenizer::{Decoding, TextTokenizer, SPACE_MARK};

pub struct TokenStream {
    skip_special: bool,
    /// Bytes that are not a character yet: fewer than 4, whenever push() returns.
    pending: Vec<u8>,
    /// Leading spaces dropped so far; None once anything else was emitted.
    leading_spaces: Option<usize>,
    /// Whether a token was decoded before.
    started: bool,
    /// All tokens' pieces, where the decoder needs them all at once.
    withheld: Vec<String>,
}

impl TokenStream {
    pub fn new(skip_special: bool) -> Self {
        TokenStream {
            skip_special,
            pending: Vec::new(),
            leading_spaces: Some(0),
            started: false,
            withheld: Vec::new(),
        }
    }

    pub fn push(&mut self, tokenizer: &TextTokenizer, id: i32) -> Result<String> {
        let Some(piece) = tokenizer.pieces.get(id) else { return Ok(String::new()) };
        if self.skip_special && piece.special {
            return Ok(String::new());
        }
        let first = !std::mem::replace(&mut self.started, true);
        let mut text = String::new();
        match tokenizer.decoding {
            Decoding::ByteLevel => {
                push_byte_level(piece.text, &mut self.pending);
                self.drain(&mut text, |_| 1);
            }
            Decoding::SentencePiece { byte_fallback, strip_spaces } => {
                match byte_of_piece(piece.text).filter(|_| byte_fallback) {
                    Some(byte) => {
                        self.pending.push(byte);
                        self.drain(&mut text, |invalid| invalid);
                    }
                    None => {
                        self.give_up(&mut text, |invalid| invalid);
                        text.extend(piece.text.chars().map(|c| if c == SPACE_MARK { ' ' } else { c }));
                    }
                }
                self.strip(&mut text, strip_spaces);
            }
            Decoding::Joined => {
                if !first {
                    text.push(' ');
                }
                text.push_str(piece.text);
            }
            Decoding::PerToken => {
                // A decoder of this kind treats only the first token of a chain differently.
                let mut chain = vec![piece.text.to_owned()];
                if !first {
                    chain.insert(0, String::new());
                }
                text = tokenizer.run_decoder(chain)?.pop().unwrap_or_default();
            }
            Decoding::Whole => self.withheld.push(piece.text.to_owned()),
        }
        Ok(text)
    }

    pub fn finish(&mut self, tokenizer: &TextTokenizer) -> Result<String> {
        let mut text = String::new();
        match tokenizer.decoding {
            Decoding::ByteLevel => self.give_up(&mut text, |_| 1),
            Decoding::SentencePiece { strip_spaces, .. } => {
                self.give_up(&mut text, |invalid| invalid);
                self.strip(&mut text, strip_spaces);
            }
            Decoding::Whole => {
                text = tokenizer.run_decoder(std::mem::take(&mut self.withheld))?.concat();
            }
            Decoding::Joined | Decoding::PerToken => {}
        }
        Ok(text)
    }

    /// Moves whole characters from `pending` to `text`; `marks(n)` U+FFFD for n bytes that are none.
    /// An incomplete character at the end stays.
    fn drain(&mut self, text: &mut String, marks: fn(usize) -> usize) {
        let mut kept = 0;
        while kept < self.pending.len() {
            match std::str::from_utf8(&self.pending[kept..]) {
                Ok(valid) => {
                    text.push_str(valid);
                    kept = self.pending.len();
                }
                Err(e) => {
                    let valid = &self.pending[kept..kept + e.valid_up_to()];
                    text.push_str(std::str::from_utf8(valid).expect("valid up to here"));
                    kept += valid.len();
                    let Some(invalid) = e.error_len() else { break };
                    push_marks(text, marks(invalid));
                    kept += invalid;
                }
            }
        }
        self.pending.drain(..kept);
    }

    /// The incomplete character in `pending` will never be completed.
    fn give_up(&mut self, text: &mut String, marks: fn(usize) -> usize) {
        if !self.pending.is_empty() {
            push_marks(text, marks(self.pending.len()));
            self.pending.clear();
        }
    }

    /// Drops up to `limit` spaces from the beginning of all text.
    fn strip(&mut self, text: &mut String, limit: usize) {
        let Some(dropped) = self.leading_spaces else { return };
        let spaces = text.bytes().take(limit - dropped).take_while(|&b| b == b' ').count();
        self.leading_spaces = (spaces == text.len() && dropped + spaces < limit).then_some(dropped + spaces);
        text.drain(..spaces);
    }
}

fn push_marks(text: &mut String, count: usize) {
    text.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, count));
}

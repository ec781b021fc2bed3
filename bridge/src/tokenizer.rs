//! One tokenizer, however it was loaded: text to ids by the `tokenizers` crate, ids to text here.

use tokenizers::{DecoderWrapper, Tokenizer};

use crate::error::{Error, Result};
use crate::pieces::{byte_of_piece, push_byte_level, Pieces};
use crate::stream::TokenStream;

/// SentencePiece's stand-in for a space.
pub const SPACE_MARK: char = '\u{2581}';

/// How ids become text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoding {
    /// Pieces spell bytes in GPT-2's alphabet.
    ByteLevel,
    /// Pieces spell text, U+2581 a space and, with `byte_fallback`, "<0x0A>" a byte; up to
    /// `strip_spaces` leading spaces of the whole text are dropped.
    SentencePiece { byte_fallback: bool, strip_spaces: usize },
    /// The decoder treats each token alone, knowing only whether it is the first.
    PerToken,
    /// Pieces joined by spaces.
    Joined,
    /// Anything else: the text is known when all tokens are.
    Whole,
}

/// Tokens with a role. Names are Transformers': "bos_token", "eos_token", "unk_token", ...
#[derive(Default)]
pub struct SpecialTokens {
    /// (name, content, id if the vocabulary has it)
    pub named: Vec<(String, String, Option<u32>)>,
    pub eos_ids: Vec<u32>,
}

impl SpecialTokens {
    pub fn id_of(&self, name: &str) -> Option<u32> {
        self.named.iter().find(|token| token.0 == name).and_then(|token| token.2)
    }

    /// Adds `id` to the tokens that end a generation.
    pub fn add_eos(&mut self, id: u32) {
        if !self.eos_ids.contains(&id) {
            self.eos_ids.push(id);
        }
    }
}

/// What to put around an encoded text if special tokens are asked for.
pub enum Affixes {
    /// What the crate's post-processor says.
    PostProcessor,
    Tokens { prefix: Vec<i32>, suffix: Vec<i32> },
}

pub struct TextTokenizer {
    pub inner: Tokenizer,
    pub pieces: Pieces,
    pub decoding: Decoding,
    pub affixes: Affixes,
    pub special: SpecialTokens,
    pub chat_template: String,
    pub kind: String,
}

impl TextTokenizer {
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<i32>> {
        let by_post_processor = matches!(self.affixes, Affixes::PostProcessor);
        let encoding = self
            .inner
            .encode_fast(text, add_special && by_post_processor)
            .map_err(|e| Error::invalid(format!("the text can't be tokenized: {e}")))?;
        let ids = encoding.get_ids().iter().map(|&id| id as i32);
        Ok(match &self.affixes {
            Affixes::Tokens { prefix, suffix } if add_special => {
                prefix.iter().copied().chain(ids).chain(suffix.iter().copied()).collect()
            }
            _ => ids.collect(),
        })
    }

    pub fn token_to_id(&self, piece: &str) -> Option<u32> {
        self.inner.token_to_id(piece)
    }

    /// Ids outside the vocabulary decode to nothing.
    pub fn decode(&self, ids: &[i32], skip_special: bool) -> Result<String> {
        let pieces = ids
            .iter()
            .filter_map(|&id| self.pieces.get(id))
            .filter(|piece| !(skip_special && piece.special))
            .map(|piece| piece.text);
        match self.decoding {
            Decoding::ByteLevel => {
                let mut bytes = Vec::new();
                pieces.for_each(|piece| push_byte_level(piece, &mut bytes));
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Decoding::SentencePiece { byte_fallback, strip_spaces } => {
                Ok(decode_sentencepiece(pieces, byte_fallback, strip_spaces))
            }
            Decoding::Joined => Ok(pieces.collect::<Vec<_>>().join(" ")),
            Decoding::PerToken | Decoding::Whole => {
                Ok(self.run_decoder(pieces.map(str::to_owned).collect())?.concat())
            }
        }
    }

    /// The crate's decoder on `pieces`; one string a piece, unless the decoder fuses them.
    pub fn run_decoder(&self, pieces: Vec<String>) -> Result<Vec<String>> {
        use tokenizers::Decoder;
        match self.inner.get_decoder() {
            None => Ok(pieces),
            Some(decoder) => decoder
                .decode_chain(pieces)
                .map_err(|e| Error::invalid(format!("the tokens can't be decoded: {e}"))),
        }
    }

    /// The token decoded alone; may be half a character.
    pub fn token_bytes(&self, id: i32) -> Vec<u8> {
        let Some(piece) = self.pieces.get(id) else { return Vec::new() };
        let mut bytes = Vec::new();
        match self.decoding {
            Decoding::ByteLevel => push_byte_level(piece.text, &mut bytes),
            Decoding::SentencePiece { byte_fallback, .. } => {
                match byte_of_piece(piece.text).filter(|_| byte_fallback) {
                    Some(byte) => bytes.push(byte),
                    None => bytes = piece.text.replace(SPACE_MARK, " ").into_bytes(),
                }
            }
            Decoding::Joined => bytes = piece.text.as_bytes().to_vec(),
            Decoding::PerToken | Decoding::Whole => {
                let mut stream = TokenStream::new(false);
                let text = stream.push(self, id).and_then(|head| Ok(head + &stream.finish(self)?));
                bytes = text.unwrap_or_default().into_bytes();
            }
        }
        bytes
    }
}

/// As SentencePiece does: in a run of byte tokens whole characters count, and each byte that is part
/// of none becomes U+FFFD.
fn decode_sentencepiece<'a>(
    pieces: impl Iterator<Item = &'a str>,
    byte_fallback: bool,
    strip_spaces: usize,
) -> String {
    let mut text = String::new();
    let mut run = Vec::new();
    for piece in pieces {
        if let Some(byte) = byte_of_piece(piece).filter(|_| byte_fallback) {
            run.push(byte);
            continue;
        }
        push_byte_run(&run, &mut text);
        run.clear();
        text.push_str(&piece.replace(SPACE_MARK, " "));
    }
    push_byte_run(&run, &mut text);
    let spaces = text.bytes().take(strip_spaces).take_while(|&b| b == b' ').count();
    text.drain(..spaces);
    text
}

fn push_byte_run(run: &[u8], text: &mut String) {
    for chunk in run.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
}

/// Recognises the decoders that can be streamed exactly.
pub fn decoding_of(decoder: Option<&DecoderWrapper>) -> Decoding {
    match decoder {
        None => Decoding::Joined,
        Some(DecoderWrapper::ByteLevel(_)) => Decoding::ByteLevel,
        Some(DecoderWrapper::Metaspace(_) | DecoderWrapper::WordPiece(_)) => Decoding::PerToken,
        Some(DecoderWrapper::Sequence(sequence)) => match sequence.get_decoders() {
            [DecoderWrapper::ByteLevel(_)] => Decoding::ByteLevel,
            parts => sentencepiece_sequence(parts).unwrap_or(Decoding::Whole),
        },
        Some(_) => Decoding::Whole,
    }
}

/// Replace(U+2581 by a space), then perhaps ByteFallback, then Fuse, then perhaps Strip.
fn sentencepiece_sequence(parts: &[DecoderWrapper]) -> Option<Decoding> {
    let (first, mut rest) = parts.split_first()?;
    let DecoderWrapper::Replace(replace) = first else { return None };
    let replace = serde_json::to_value(replace).ok()?;
    if replace["pattern"]["String"] != "\u{2581}" || replace["content"] != " " {
        return None;
    }
    let mut byte_fallback = false;
    if let [DecoderWrapper::ByteFallback(_), tail @ ..] = rest {
        (byte_fallback, rest) = (true, tail);
    }
    if let [DecoderWrapper::Fuse(_), tail @ ..] = rest {
        rest = tail;
    } else if !rest.is_empty() {
        return None;
    }
    let strip_spaces = match rest {
        [] => 0,
        [DecoderWrapper::Strip(strip)] if strip.content == ' ' && strip.stop == 0 => strip.start,
        _ => return None,
    };
    Some(Decoding::SentencePiece { byte_fallback, strip_spaces })
}

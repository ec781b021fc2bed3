//! SentencePiece models: tokenizer.model's protobuf, and their BPE and unigram models as the
//! `tokenizers` crate's. Format: sentencepiece_model.proto.

use ahash::AHashMap;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::strip::Strip as StripDecoder;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{
    NormalizerWrapper, Precompiled, Prepend, Replace, Sequence as NormalizerSequence, Strip,
};
use tokenizers::{AddedToken, Tokenizer};

use crate::error::{Error, Result};
use crate::tokenizer::SPACE_MARK;

/// The types of SentencePiece's pieces, which GGUF's `token_type` shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl PieceKind {
    pub fn from_number(number: i64) -> Option<Self> {
        Some(match number {
            0 | 1 => PieceKind::Normal, // GGUF's 0 is "undefined"
            2 => PieceKind::Unknown,
            3 => PieceKind::Control,
            4 => PieceKind::UserDefined,
            5 => PieceKind::Unused,
            6 => PieceKind::Byte,
            _ => return None,
        })
    }
    /// Skipped when special tokens are.
    pub fn is_special(self) -> bool {
        matches!(self, PieceKind::Unknown | PieceKind::Control)
    }
    /// Recognised in text as it stands.
    pub fn is_added(self) -> bool {
        matches!(self, PieceKind::Unknown | PieceKind::Control | PieceKind::UserDefined)
    }
}

#[derive(Clone, Copy)]
pub struct Piece<'a> {
    pub text: &'a str,
    pub score: f64,
    pub kind: PieceKind,
}

pub fn unknown_id(pieces: &[Piece]) -> Option<u32> {
    pieces.iter().position(|piece| piece.kind == PieceKind::Unknown).map(|id| id as u32)
}

fn has_all_bytes(pieces: &[Piece]) -> bool {
    pieces.iter().filter(|piece| piece.kind == PieceKind::Byte).count() == 256
}

/// BPE whose merges are every split of a piece into two pieces, the best score first (as
/// Transformers converts such models).
pub fn bpe_model(pieces: &[Piece], unk: Option<u32>) -> Result<BPE> {
    let mut ids: AHashMap<&str, u32> = AHashMap::with_capacity(pieces.len());
    for (id, piece) in pieces.iter().enumerate() {
        ids.insert(piece.text, id as u32);
    }
    // (id of the whole, id of the left part, id of the right part)
    let mut merges: Vec<(u32, u32, u32)> = Vec::with_capacity(2 * pieces.len());
    for (id, piece) in pieces.iter().enumerate() {
        if !matches!(piece.kind, PieceKind::Normal | PieceKind::UserDefined | PieceKind::Unused) {
            continue;
        }
        let begin = merges.len();
        for (at, _) in piece.text.char_indices().skip(1) {
            let Some(&left) = ids.get(&piece.text[..at]) else { continue };
            let Some(&right) = ids.get(&piece.text[at..]) else { continue };
            merges.push((id as u32, left, right));
        }
        merges[begin..].sort_by_key(|merge| (merge.1, merge.2));
    }
    let chars: Vec<u32> = pieces.iter().map(|piece| piece.text.chars().count() as u32).collect();
    merges.sort_by(|a, b| {
        let key = |m: &(u32, u32, u32)| (chars[m.1 as usize], chars[m.2 as usize]);
        let score = |m: &(u32, u32, u32)| pieces[m.0 as usize].score;
        score(b).total_cmp(&score(a)).then_with(|| key(b).cmp(&key(a)))
    });
    let text = |id: u32| pieces[id as usize].text.to_owned();
    let pairs = merges.iter().map(|merge| (text(merge.1), text(merge.2))).collect();
    let vocab: AHashMap<String, u32> =
        ids.into_iter().map(|(text, id)| (text.to_owned(), id)).collect();
    let mut builder = BPE::builder()
        .vocab_and_merges(vocab, pairs)
        .byte_fallback(has_all_bytes(pieces))
        .fuse_unk(true);
    if let Some(unk) = unk {
        builder = builder.unk_token(text(unk));
    }
    builder.build().map_err(|e| Error::corrupt(format!("the vocabulary's merges: {e}")))
}

/// How text becomes pieces and back, SentencePiece's way: spaces are U+2581, one is put in front if
/// `add_space`; runs of spaces shrink to one if `squeeze`. `charsmap` is the model's own table of
/// replacements, or empty.
pub fn set_text_rules(
    inner: &mut Tokenizer,
    charsmap: &[u8],
    add_space: bool,
    squeeze: bool,
) -> Result<()> {
    let bad = |e| Error::corrupt(format!("the normalizer: {e}"));
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    if !charsmap.is_empty() {
        let table = Precompiled::from(charsmap)
            .map_err(|e| Error::corrupt(format!("precompiled_charsmap: {e:?}")))?;
        normalizers.push(table.into());
    }
    if squeeze {
        normalizers.push(Strip::new(true, true).into());
        let runs = ReplacePattern::Regex(" {2,}".to_owned());
        normalizers.push(Replace::new(runs, " ").map_err(bad)?.into());
    }
    if add_space {
        normalizers.push(Prepend::new(SPACE_MARK.to_string()).into());
    }
    normalizers.push(Replace::new(" ", SPACE_MARK.to_string()).map_err(bad)?.into());
    inner.with_normalizer(Some(NormalizerSequence::new(normalizers))).map_err(bad)?;

    let unmark = Replace::new(SPACE_MARK.to_string(), " ").map_err(bad)?;
    let mut decoders: Vec<DecoderWrapper> =
        vec![unmark.into(), ByteFallback::new().into(), Fuse::new().into()];
    if add_space {
        decoders.push(StripDecoder::new(' ', 1, 0).into());
    }
    inner.with_decoder(Some(DecoderSequence::new(decoders)));
    Ok(())
}

/// tokenizer.model, as far as a tokenizer needs it.
pub struct ModelFile<'a> {
    pub pieces: Vec<Piece<'a>>,
    charsmap: &'a [u8],
    unigram: bool,
    add_space: bool,
    squeeze: bool,
}

impl<'a> ModelFile<'a> {
    /// The file's bytes: a `ModelProto`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut model = ModelFile {
            pieces: Vec::new(),
            charsmap: &[],
            unigram: true,
            add_space: true,
            squeeze: true,
        };
        let mut message = Message { bytes, at: 0, base: 0 };
        while let Some((number, field)) = message.next()? {
            match (number, field) {
                (1, Field::Bytes(piece, at)) => {
                    let piece = parse_piece(Message { bytes: piece, at: 0, base: at })?;
                    model.pieces.push(piece);
                }
                (2, Field::Bytes(spec, at)) => {
                    model.trainer_spec(Message { bytes: spec, at: 0, base: at })?;
                }
                (3, Field::Bytes(spec, at)) => {
                    model.normalizer_spec(Message { bytes: spec, at: 0, base: at })?;
                }
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err(Error::corrupt("not a SentencePiece model: it has no pieces"));
        }
        Ok(model)
    }

    fn trainer_spec(&mut self, mut message: Message<'a>) -> Result<()> {
        while let Some((number, field)) = message.next()? {
            match (number, field) {
                (3, Field::Number(1)) => self.unigram = true,
                (3, Field::Number(2)) => self.unigram = false,
                (3, Field::Number(other)) => {
                    return Err(Error::unsupported(format!(
                        "SentencePiece model type {other}: 1 (unigram) and 2 (BPE) are supported"
                    )))
                }
                (24, Field::Number(1)) => {
                    return Err(Error::unsupported("SentencePiece's treat_whitespace_as_suffix"))
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn normalizer_spec(&mut self, mut message: Message<'a>) -> Result<()> {
        while let Some((number, field)) = message.next()? {
            match (number, field) {
                (2, Field::Bytes(table, _)) => self.charsmap = table,
                (3, Field::Number(value)) => self.add_space = value != 0,
                (4, Field::Number(value)) => self.squeeze = value != 0,
                (5, Field::Number(0)) => {
                    return Err(Error::unsupported("SentencePiece without escape_whitespaces"))
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub fn kind(&self) -> &'static str {
        if self.unigram {
            "unigram (SentencePiece)"
        } else {
            "BPE (SentencePiece)"
        }
    }

    pub fn build(&self) -> Result<Tokenizer> {
        let unk = unknown_id(&self.pieces);
        let mut inner = if self.unigram {
            let vocab = self.pieces.iter().map(|p| (p.text.to_owned(), p.score)).collect();
            let bytes = has_all_bytes(&self.pieces);
            let model = Unigram::from(vocab, unk.map(|id| id as usize), bytes)
                .map_err(|e| Error::corrupt(format!("the unigram vocabulary: {e}")))?;
            Tokenizer::new(model)
        } else {
            Tokenizer::new(bpe_model(&self.pieces, unk)?)
        };
        set_text_rules(&mut inner, self.charsmap, self.add_space, self.squeeze)?;
        let added: Vec<AddedToken> = self
            .pieces
            .iter()
            .filter(|piece| piece.kind.is_added() && !piece.text.is_empty())
            .map(|piece| AddedToken::from(piece.text, piece.kind.is_special()).normalized(false))
            .collect();
        inner.add_tokens(added).map_err(|e| Error::corrupt(format!("special pieces: {e}")))?;
        Ok(inner)
    }
}

fn parse_piece(mut message: Message) -> Result<Piece> {
    let at = message.base;
    let mut piece = Piece { text: "", score: 0.0, kind: PieceKind::Normal };
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (1, Field::Bytes(text, at)) => {
                piece.text = std::str::from_utf8(text)
                    .map_err(|_| Error::corrupt(format!("offset {at}: a piece is not UTF-8")))?;
            }
            (2, Field::Fixed32(bits)) => piece.score = f64::from(f32::from_bits(bits)),
            (3, Field::Number(kind)) => {
                piece.kind = PieceKind::from_number(kind as i64).ok_or_else(|| {
                    Error::corrupt(format!("offset {at}: piece type {kind}: expected 1 to 6"))
                })?;
            }
            _ => {}
        }
    }
    if !piece.score.is_finite() {
        return Err(Error::corrupt(format!("offset {at}: a piece's score is not finite")));
    }
    Ok(piece)
}

/// One protobuf message; `base` is its offset in the file.
struct Message<'a> {
    bytes: &'a [u8],
    at: usize,
    base: usize,
}

enum Field<'a> {
    Number(u64),
    Fixed32(u32),
    /// With the offset in the file.
    Bytes(&'a [u8], usize),
    Other,
}

impl<'a> Message<'a> {
    fn truncated(&self) -> Error {
        Error::corrupt(format!("offset {}: truncated or not protobuf", self.base + self.at))
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or_else(|| self.truncated())?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.truncated())
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8]> {
        let end = usize::try_from(count).ok().and_then(|count| self.at.checked_add(count));
        let taken = end
            .and_then(|end| self.bytes.get(self.at..end))
            .ok_or_else(|| self.truncated())?;
        self.at += taken.len();
        Ok(taken)
    }

    /// The next field's number and content, or None at the end.
    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Number(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Other
            }
            2 => {
                let length = self.varint()?;
                let at = self.base + self.at;
                Field::Bytes(self.take(length)?, at)
            }
            5 => {
                let bytes = self.take(4)?.try_into().expect("four bytes were taken");
                Field::Fixed32(u32::from_le_bytes(bytes))
            }
            _ => return Err(self.truncated()),
        };
        Ok(Some((tag >> 3, field)))
    }
}

//! Builds a tokenizer from a GGUF file's own metadata (`tokenizer.ggml.*`), without tokenizer.json.

use ahash::AHashMap;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use crate::error::{Error, Result};
use crate::gguf::{Metadata, Strings};
use crate::pieces::Pieces;
use crate::pre_tokenizers;
use crate::sentencepiece::{self, PieceKind};
use crate::tokenizer::{decoding_of, Affixes, SpecialTokens, TextTokenizer};

pub fn from_gguf(path: &str) -> Result<TextTokenizer> {
    build(&Metadata::read(path)?).map_err(|e| e.within(path))
}

fn build(metadata: &Metadata) -> Result<TextTokenizer> {
    let model = metadata
        .string("tokenizer.ggml.model")?
        .ok_or_else(|| Error::corrupt("key tokenizer.ggml.model: missing"))?;
    let tokens = metadata
        .strings("tokenizer.ggml.tokens")?
        .filter(|tokens| tokens.len() > 0)
        .ok_or_else(|| Error::corrupt("key tokenizer.ggml.tokens: missing or empty"))?;
    let kinds = token_kinds(metadata, tokens.len())?;
    let (mut inner, kind, default_bos) = match model {
        "gpt2" => byte_level_bpe(metadata, tokens)?,
        "llama" => sentencepiece_bpe(metadata, tokens, &kinds)?,
        other => {
            return Err(Error::unsupported(format!(
                "key tokenizer.ggml.model: \"{other}\"; \"gpt2\" (byte-level BPE) and \"llama\" \
                 (SentencePiece BPE) are supported"
            )))
        }
    };
    add_tokens(&mut inner, tokens, &kinds)?;
    let special = special_tokens(metadata, tokens, &kinds)?;
    let pieces = tokens
        .iter()
        .enumerate()
        .map(|(id, text)| (id as u32, text, kinds[id].is_special()))
        .collect();
    Ok(TextTokenizer {
        decoding: decoding_of(inner.get_decoder()),
        pieces: Pieces::build(pieces)?,
        affixes: affixes(metadata, &special, default_bos)?,
        inner,
        special,
        chat_template: metadata.string("tokenizer.chat_template")?.unwrap_or_default().to_owned(),
        kind,
    })
}

fn token_kinds(metadata: &Metadata, count: usize) -> Result<Vec<PieceKind>> {
    match metadata.numbers("tokenizer.ggml.token_type", count)? {
        None => Ok(vec![PieceKind::Normal; count]),
        Some(numbers) => numbers
            .iter()
            .enumerate()
            .map(|(id, &number)| {
                PieceKind::from_number(number as i64).ok_or_else(|| {
                    Error::corrupt(format!(
                        "key tokenizer.ggml.token_type: {number} for token {id}: expected 0 to 6"
                    ))
                })
            })
            .collect(),
    }
}

type Built = (Tokenizer, String, bool);

fn byte_level_bpe(metadata: &Metadata, tokens: &Strings) -> Result<Built> {
    let name = metadata.string("tokenizer.ggml.pre")?.unwrap_or("default");
    let pre_tokenizer = pre_tokenizers::find(name)?;
    let merges = metadata
        .strings("tokenizer.ggml.merges")?
        .ok_or_else(|| Error::corrupt("key tokenizer.ggml.merges: missing"))?;
    let mut vocab = AHashMap::with_capacity(tokens.len());
    for (id, text) in tokens.iter().enumerate() {
        vocab.insert(text.to_owned(), id as u32);
    }
    let mut pairs = Vec::with_capacity(merges.len());
    for (rank, merge) in merges.iter().enumerate() {
        // A token may begin with a space of its own, so the separator is the first one after that.
        let separator = merge
            .char_indices()
            .skip(1)
            .find(|&(_, c)| c == ' ')
            .ok_or_else(|| {
                Error::corrupt(format!("key tokenizer.ggml.merges: no space in element {rank}"))
            })?
            .0;
        pairs.push((merge[..separator].to_owned(), merge[separator + 1..].to_owned()));
    }
    let model = BPE::builder()
        .vocab_and_merges(vocab, pairs)
        .ignore_merges(pre_tokenizer.ignore_merges)
        .build()
        .map_err(|e| Error::corrupt(format!("key tokenizer.ggml.merges: {e}")))?;
    let mut inner = Tokenizer::new(model);
    inner.with_pre_tokenizer(Some(pre_tokenizer.build()?));
    inner.with_decoder(Some(ByteLevel::default()));
    Ok((inner, format!("BPE (byte level, {name})"), pre_tokenizer.add_bos))
}

fn sentencepiece_bpe(
    metadata: &Metadata,
    tokens: &Strings,
    kinds: &[PieceKind],
) -> Result<Built> {
    let scores = metadata
        .numbers("tokenizer.ggml.scores", tokens.len())?
        .ok_or_else(|| Error::corrupt("key tokenizer.ggml.scores: missing"))?;
    let pieces: Vec<_> = tokens
        .iter()
        .enumerate()
        .map(|(id, text)| sentencepiece::Piece { text, score: scores[id], kind: kinds[id] })
        .collect();
    let unk = metadata
        .token_id("tokenizer.ggml.unknown_token_id", tokens.len())?
        .or_else(|| sentencepiece::unknown_id(&pieces));
    let add_space = metadata.boolean("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let mut inner = Tokenizer::new(sentencepiece::bpe_model(&pieces, unk)?);
    sentencepiece::set_text_rules(&mut inner, &[], add_space, false)?;
    Ok((inner, "BPE (SentencePiece)".to_owned(), true))
}

/// Tokens that are recognised in text as they stand.
fn add_tokens(inner: &mut Tokenizer, tokens: &Strings, kinds: &[PieceKind]) -> Result<()> {
    let added: Vec<AddedToken> = tokens
        .iter()
        .zip(kinds)
        .filter(|(text, kind)| !text.is_empty() && kind.is_added())
        .map(|(text, kind)| AddedToken::from(text, kind.is_special()).normalized(false))
        .collect();
    inner
        .add_tokens(added)
        .map(|_| ())
        .map_err(|e| Error::corrupt(format!("key tokenizer.ggml.tokens: {e}")))
}

/// Spellings of tokens that end a turn; files often name only one of them as eos.
const END_OF_TURN: [&str; 6] =
    ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|end_of_text|>"];

fn special_tokens(
    metadata: &Metadata,
    tokens: &Strings,
    kinds: &[PieceKind],
) -> Result<SpecialTokens> {
    let mut special = SpecialTokens::default();
    let id_of = |key: &str| metadata.token_id(&format!("tokenizer.ggml.{key}"), tokens.len());
    for (name, key) in [
        ("bos_token", "bos_token_id"),
        ("eos_token", "eos_token_id"),
        ("unk_token", "unknown_token_id"),
        ("sep_token", "seperator_token_id"), // ggml spells it so
        ("pad_token", "padding_token_id"),
    ] {
        if let Some(id) = id_of(key)? {
            special.named.push((name.to_owned(), tokens.get(id as usize).to_owned(), Some(id)));
        }
    }
    for key in ["eos_token_id", "eot_token_id", "eom_token_id"] {
        if let Some(id) = id_of(key)? {
            special.add_eos(id);
        }
    }
    for (id, text) in tokens.iter().enumerate() {
        if kinds[id].is_added() && END_OF_TURN.contains(&text) {
            special.add_eos(id as u32);
        }
    }
    Ok(special)
}

fn affixes(metadata: &Metadata, special: &SpecialTokens, default_bos: bool) -> Result<Affixes> {
    let token = |key: &str, name: &str, default: bool| -> Result<Vec<i32>> {
        let wanted = metadata.boolean(key)?.unwrap_or(default);
        Ok(special.id_of(name).filter(|_| wanted).map(|id| id as i32).into_iter().collect())
    };
    Ok(Affixes::Tokens {
        prefix: token("tokenizer.ggml.add_bos_token", "bos_token", default_bos)?,
        suffix: token("tokenizer.ggml.add_eos_token", "eos_token", false)?,
    })
}

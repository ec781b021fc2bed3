//! Loads a tokenizer from a model directory as it was published on Hugging Face.

use std::path::{Path, PathBuf};

use ahash::{AHashMap, AHashSet};
use serde_json::{Map, Value as Json};
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, ModelWrapper, Tokenizer};

use crate::error::{Error, Kind, Result};
use crate::pieces::Pieces;
use crate::pre_tokenizers;
use crate::sentencepiece::ModelFile;
use crate::tokenizer::{decoding_of, Affixes, Decoding, SpecialTokens, TextTokenizer};

const MAX_FILE_BYTES: u64 = 1 << 30;
/// tokenizer.json needs 8 or so; deeper ones only cost time.
const MAX_JSON_DEPTH: usize = 24;

/// Names of special tokens, as Transformers passes them to chat templates.
const SPECIAL_NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

pub fn from_directory(directory: &str) -> Result<TextTokenizer> {
    let directory = Directory { path: PathBuf::from(directory) };
    let config = directory.json_object("tokenizer_config.json")?;
    let (mut inner, kind, mut affixes) = directory.tokenizer(&config)?;
    let added = directory.added_tokens(&config)?;
    add_missing_tokens(&mut inner, &added)?;
    override_affixes(&config, &inner, &mut affixes);

    let vocab = inner.get_vocab(true);
    let specials: AHashSet<String> = inner
        .get_added_tokens_decoder()
        .values()
        .filter(|token| token.special)
        .map(|token| token.content.clone())
        .collect();
    let tokens = vocab
        .iter()
        .map(|(text, &id)| (id, text.as_str(), specials.contains(text)))
        .collect();
    let pieces = Pieces::build(tokens).map_err(|e| e.within(&directory.name("")))?;
    Ok(TextTokenizer {
        decoding: decoding_of(inner.get_decoder()),
        special: directory.special_tokens(&config, &inner, pieces.len())?,
        chat_template: directory.chat_template(&config)?,
        pieces,
        inner,
        affixes,
        kind,
    })
}

struct Directory {
    path: PathBuf,
}

impl Directory {
    fn name(&self, file: &str) -> String {
        self.path.join(file).display().to_string()
    }

    fn has(&self, file: &str) -> bool {
        self.path.join(file).is_file()
    }

    /// A file's bytes, or None if there is no such file.
    fn bytes(&self, file: &str) -> Result<Option<Vec<u8>>> {
        let path: &Path = &self.path.join(file);
        let io = |e: std::io::Error| Error::new(Kind::Io, format!("{}: {e}", path.display()));
        let length = match std::fs::metadata(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io(e)),
            Ok(metadata) => metadata.len(),
        };
        if length > MAX_FILE_BYTES {
            return Err(Error::corrupt(format!(
                "{}: {length} bytes, over the limit of {MAX_FILE_BYTES}",
                path.display()
            )));
        }
        std::fs::read(path).map(Some).map_err(io)
    }

    fn text(&self, file: &str) -> Result<Option<String>> {
        let Some(bytes) = self.bytes(file)? else { return Ok(None) };
        String::from_utf8(bytes).map(Some).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            Error::corrupt(format!("{}: not UTF-8 at offset {at}", self.name(file)))
        })
    }

    /// A JSON object; an absent file is an empty one.
    fn json_object(&self, file: &str) -> Result<Map<String, Json>> {
        let Some(bytes) = self.bytes(file)? else { return Ok(Map::new()) };
        match serde_json::from_slice(&bytes) {
            Ok(Json::Object(object)) => Ok(object),
            Ok(_) => Err(Error::corrupt(format!("{}: expected an object", self.name(file)))),
            Err(e) => Err(Error::corrupt(format!("{}: {e}", self.name(file)))),
        }
    }

    fn tokenizer(&self, config: &Map<String, Json>) -> Result<(Tokenizer, String, Affixes)> {
        if let Some(bytes) = self.bytes("tokenizer.json")? {
            let inner = parse_tokenizer_json(&bytes)
                .map_err(|e| e.within(&self.name("tokenizer.json")))?;
            let kind = kind_of(&inner);
            Ok((inner, kind, Affixes::PostProcessor))
        } else if self.has("vocab.json") && self.has("merges.txt") {
            let (inner, kind) = self.byte_level_bpe(config)?;
            Ok((inner, kind, Affixes::Tokens { prefix: Vec::new(), suffix: Vec::new() }))
        } else if let Some(bytes) = self.bytes("tokenizer.model")? {
            let name = self.name("tokenizer.model");
            let model = ModelFile::parse(&bytes).map_err(|e| e.within(&name))?;
            let inner = model.build().map_err(|e| e.within(&name))?;
            let bos = model.pieces.iter().position(|piece| piece.text == "<s>");
            let prefix = bos.map(|id| id as i32).into_iter().collect();
            Ok((inner, model.kind().to_owned(), Affixes::Tokens { prefix, suffix: Vec::new() }))
        } else {
            Err(Error::new(
                Kind::NotFound,
                format!(
                    "{}: no tokenizer.json, no vocab.json with merges.txt, no tokenizer.model",
                    self.path.display()
                ),
            ))
        }
    }

    /// GPT-2's format: vocab.json and merges.txt.
    fn byte_level_bpe(&self, config: &Map<String, Json>) -> Result<(Tokenizer, String)> {
        let corrupt = |file: &str, what: String| {
            Error::corrupt(format!("{}: {what}", self.name(file)))
        };
        let mut vocab = AHashMap::new();
        for (piece, id) in self.json_object("vocab.json")? {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
                corrupt("vocab.json", format!("\"{piece}\": expected an id from 0 to 4294967295"))
            })?;
            vocab.insert(piece, id);
        }
        // Added tokens keep the ids that the files give them.
        for added in self.added_tokens(config)? {
            vocab.entry(added.token.content).or_insert(added.id);
        }
        let text = self.text("merges.txt")?.unwrap_or_default();
        let mut merges = Vec::new();
        for (line_number, line) in text.lines().enumerate() {
            if line.is_empty() || (line_number == 0 && line.starts_with("#version")) {
                continue;
            }
            let (left, right) = line.split_once(' ').ok_or_else(|| {
                corrupt("merges.txt", format!("line {}: expected two pieces", line_number + 1))
            })?;
            merges.push((left.to_owned(), right.to_owned()));
        }
        let model = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .build()
            .map_err(|e| corrupt("merges.txt", e.to_string()))?;
        let mut inner = Tokenizer::new(model);
        let class = config.get("tokenizer_class").and_then(Json::as_str).unwrap_or("");
        if class.starts_with("Qwen2") {
            inner.with_normalizer(Some(NFC)).map_err(|e| corrupt("vocab.json", e.to_string()))?;
            inner.with_pre_tokenizer(Some(pre_tokenizers::find("qwen2")?.build()?));
        } else {
            let space = config.get("add_prefix_space").and_then(Json::as_bool).unwrap_or(false);
            inner.with_pre_tokenizer(Some(ByteLevel::new(space, true, true)));
        }
        inner.with_decoder(Some(ByteLevel::default()));
        Ok((inner, "BPE (byte level)".to_owned()))
    }

    /// added_tokens.json, and tokenizer_config.json's added_tokens_decoder, by id.
    fn added_tokens(&self, config: &Map<String, Json>) -> Result<Vec<Added>> {
        let mut added = Vec::new();
        for (content, id) in self.json_object("added_tokens.json")? {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
                Error::corrupt(format!(
                    "{}: \"{content}\": expected an id",
                    self.name("added_tokens.json")
                ))
            })?;
            added.push(Added { id, token: AddedToken::from(content, false).normalized(false) });
        }
        let name = self.name("tokenizer_config.json");
        if let Some(Json::Object(decoder)) = config.get("added_tokens_decoder") {
            for (key, value) in decoder {
                let bad = |what: &str| {
                    Error::corrupt(format!("{name}: added_tokens_decoder.{key}: {what}"))
                };
                let id: u32 = key.parse().map_err(|_| bad("expected an id as the key"))?;
                let content =
                    value["content"].as_str().ok_or_else(|| bad("expected a string \"content\""))?;
                let flag = |flag: &str| value[flag].as_bool().unwrap_or(false);
                let token = AddedToken::from(content, flag("special"))
                    .single_word(flag("single_word"))
                    .lstrip(flag("lstrip"))
                    .rstrip(flag("rstrip"))
                    .normalized(flag("normalized"));
                added.retain(|other: &Added| other.id != id);
                added.push(Added { id, token });
            }
        }
        added.sort_by_key(|added| added.id);
        Ok(added)
    }

    fn special_tokens(
        &self,
        config: &Map<String, Json>,
        inner: &Tokenizer,
        vocab_size: usize,
    ) -> Result<SpecialTokens> {
        let map = self.json_object("special_tokens_map.json")?;
        let mut special = SpecialTokens::default();
        for name in SPECIAL_NAMES {
            // A config that says null takes the token away.
            let value = config.get(name).or_else(|| map.get(name));
            if let Some(content) = value.and_then(token_content) {
                let id = inner.token_to_id(content);
                special.named.push((name.to_owned(), content.to_owned(), id));
            }
        }
        if let Some(eos) = special.id_of("eos_token") {
            special.add_eos(eos);
        }
        let generation = self.json_object("generation_config.json")?;
        let ids = match generation.get("eos_token_id") {
            None | Some(Json::Null) => Vec::new(),
            Some(Json::Array(ids)) => ids.clone(),
            Some(id) => vec![id.clone()],
        };
        for id in ids {
            let id = id.as_u64().filter(|&id| id < vocab_size as u64).ok_or_else(|| {
                Error::corrupt(format!(
                    "{}: eos_token_id: {id}: expected a token id below {vocab_size}",
                    self.name("generation_config.json")
                ))
            })?;
            special.add_eos(id as u32);
        }
        Ok(special)
    }

    /// chat_template.jinja, or tokenizer_config.json's chat_template, or chat_template.json's.
    fn chat_template(&self, config: &Map<String, Json>) -> Result<String> {
        if let Some(template) = self.text("chat_template.jinja")? {
            return Ok(template);
        }
        let file = self.json_object("chat_template.json")?;
        for source in [config, &file] {
            match source.get("chat_template") {
                Some(Json::String(template)) => return Ok(template.clone()),
                Some(Json::Array(named)) => return Ok(default_template(named)),
                _ => {}
            }
        }
        Ok(String::new())
    }
}

/// Of a list of {"name": ..., "template": ...}: the one named "default", else the first.
fn default_template(named: &[Json]) -> String {
    named
        .iter()
        .find(|entry| entry["name"] == "default")
        .or(named.first())
        .and_then(|entry| entry["template"].as_str())
        .unwrap_or_default()
        .to_owned()
}

struct Added {
    id: u32,
    token: AddedToken,
}

/// A special token is a string, or an object with its "content".
fn token_content(value: &Json) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

fn parse_tokenizer_json(bytes: &[u8]) -> Result<Tokenizer> {
    check_depth(bytes)?;
    // The crate's readers of single parts panic on some malformed ones.
    let mut inner: Tokenizer = crate::guard(|| {
        Tokenizer::from_bytes(bytes).map_err(|e| Error::corrupt(e.to_string()))
    })
    .map_err(|e| Error::corrupt(e.message))?;
    // Padding and truncation are for training.
    inner.with_padding(None);
    inner.with_truncation(None).map_err(|e| Error::corrupt(e.to_string()))?;
    Ok(inner)
}

/// The crate tries several readings of each nested part: refuse depth before it does.
fn check_depth(json: &[u8]) -> Result<()> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (offset, &byte) in json.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_JSON_DEPTH {
                    return Err(Error::corrupt(format!(
                        "offset {offset}: nested deeper than {MAX_JSON_DEPTH} levels"
                    )));
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

fn kind_of(inner: &Tokenizer) -> String {
    let byte_level = decoding_of(inner.get_decoder()) == Decoding::ByteLevel;
    match inner.get_model() {
        ModelWrapper::BPE(_) if byte_level => "BPE (byte level)",
        ModelWrapper::BPE(bpe) if bpe.byte_fallback => "BPE (SentencePiece)",
        ModelWrapper::BPE(_) => "BPE",
        ModelWrapper::Unigram(_) => "unigram",
        ModelWrapper::WordPiece(_) => "WordPiece",
        ModelWrapper::WordLevel(_) => "word level",
    }
    .to_owned()
}

/// Adds what the config lists and the tokenizer lacks, under the ids that the config gives.
fn add_missing_tokens(inner: &mut Tokenizer, added: &[Added]) -> Result<()> {
    let known = inner.get_added_tokens_decoder();
    let missing: Vec<&Added> =
        added.iter().filter(|added| !known.contains_key(&added.id)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    inner
        .add_tokens(missing.iter().map(|added| added.token.clone()).collect::<Vec<_>>())
        .map_err(|e| Error::corrupt(format!("added tokens: {e}")))?;
    for added in missing {
        let content = &added.token.content;
        if !content.is_empty() && inner.token_to_id(content) != Some(added.id) {
            return Err(Error::corrupt(format!(
                "added token \"{content}\": id {} leaves a gap after the vocabulary",
                added.id
            )));
        }
    }
    Ok(())
}

/// Llama's and Gemma's classes put BOS and EOS around a text as tokenizer_config.json says, whatever
/// tokenizer.json's post-processor does; so does every tokenizer that has no post-processor.
fn override_affixes(config: &Map<String, Json>, inner: &Tokenizer, affixes: &mut Affixes) {
    let class = config.get("tokenizer_class").and_then(Json::as_str).unwrap_or("");
    let by_config = ["Llama", "CodeLlama", "Gemma"].iter().any(|name| class.starts_with(name));
    let flag = |name: &str| config.get(name).and_then(Json::as_bool);
    let token = |name: &str| -> Vec<i32> {
        let content = config.get(name).and_then(token_content);
        content.and_then(|content| inner.token_to_id(content)).map(|id| id as i32).into_iter().collect()
    };
    if matches!(affixes, Affixes::PostProcessor) {
        if !by_config || (flag("add_bos_token").is_none() && flag("add_eos_token").is_none()) {
            return;
        }
        *affixes = Affixes::Tokens { prefix: token("bos_token"), suffix: Vec::new() };
    }
    let Affixes::Tokens { prefix, suffix } = affixes else { return };
    match flag("add_bos_token") {
        Some(false) => prefix.clear(),
        Some(true) => *prefix = token("bos_token"),
        None => {}
    }
    if flag("add_eos_token") == Some(true) {
        *suffix = token("eos_token");
    }
}

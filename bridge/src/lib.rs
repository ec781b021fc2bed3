//! What C++ sees of the Rust crates: tokenizers, incremental detokenisation and chat templates.
//! Every entry contains panics: they come out as errors of kind `Internal`.

// For memory_limit.rs. The hook is in every standard library since 2018, but not yet declared stable:
// .cargo/config.toml lets this crate, and no other, name it.
#![feature(alloc_error_hook)]

mod chat;
mod chat_env;
mod error;
mod gguf;
mod gguf_vocab;
mod hugging_face;
mod memory_limit;
mod pieces;
mod pre_tokenizers;
mod python_text;
mod sentencepiece;
mod stream;
mod tokenizer;

use std::cell::Cell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

use chat::Template;
use error::{Error, Kind, Result};
use stream::TokenStream;
use tokenizer::TextTokenizer;

#[cxx::bridge(namespace = "pagemill::bridge")]
mod ffi {
    /// What is asked once, at start.
    struct TokenizerInfo {
        vocab_size: i32,
        /// -1 where there is none.
        bos_token_id: i32,
        /// -1 where there is none.
        eos_token_id: i32,
        eos_token_ids: Vec<i32>,
        chat_template: String,
        kind: String,
    }

    extern "Rust" {
        type TextTokenizer;
        fn tokenizer_from_directory(path: &str) -> Result<Box<TextTokenizer>>;
        fn tokenizer_from_gguf(path: &str) -> Result<Box<TextTokenizer>>;
        fn tokenizer_info(tokenizer: &TextTokenizer) -> Result<TokenizerInfo>;
        fn encode(tokenizer: &TextTokenizer, text: &[u8], add_special: bool) -> Result<Vec<i32>>;
        fn decode(tokenizer: &TextTokenizer, ids: &[i32], skip_special: bool) -> Result<String>;
        fn token_bytes(tokenizer: &TextTokenizer, id: i32) -> Result<Vec<u8>>;
        fn token_piece(tokenizer: &TextTokenizer, id: i32) -> Result<String>;
        /// -1 if there is no such piece.
        fn token_to_id(tokenizer: &TextTokenizer, piece: &[u8]) -> Result<i32>;
        fn is_special(tokenizer: &TextTokenizer, id: i32) -> Result<bool>;

        type TokenStream;
        fn new_stream(skip_special: bool) -> Box<TokenStream>;
        fn stream_push(
            stream: &mut TokenStream,
            tokenizer: &TextTokenizer,
            id: i32,
        ) -> Result<String>;
        fn stream_finish(stream: &mut TokenStream, tokenizer: &TextTokenizer) -> Result<String>;

        type Template;
        fn compile_template(source: &[u8], tokenizer: &TextTokenizer) -> Result<Box<Template>>;
        fn render_template(compiled: &Template, context_json: &[u8]) -> Result<String>;
    }
}

thread_local! {
    /// How many guards this thread is inside of.
    static CONTAINED: Cell<u32> = const { Cell::new(0) };
}

/// A panic that a guard turns into an error is not reported on stderr as well.
fn silence_contained_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CONTAINED.get() == 0 {
                report(info);
            }
        }));
    });
}

/// Runs `body`; a panic, which only a bug here or in a crate can cause, becomes an error.
fn guard<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    silence_contained_panics();
    CONTAINED.set(CONTAINED.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(body));
    CONTAINED.set(CONTAINED.get() - 1);
    outcome.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Error::new(Kind::Internal, format!("internal error in the tokenizer bridge: {text}")))
    })
}

fn utf8<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|e| {
        Error::invalid(format!("{what} is not UTF-8: invalid byte at offset {}", e.valid_up_to()))
    })
}

fn tokenizer_from_directory(path: &str) -> Result<Box<TextTokenizer>> {
    guard(|| hugging_face::from_directory(path).map(Box::new))
}

fn tokenizer_from_gguf(path: &str) -> Result<Box<TextTokenizer>> {
    guard(|| gguf_vocab::from_gguf(path).map(Box::new))
}

fn tokenizer_info(tokenizer: &TextTokenizer) -> Result<ffi::TokenizerInfo> {
    guard(|| {
        let special = &tokenizer.special;
        Ok(ffi::TokenizerInfo {
            vocab_size: tokenizer.pieces.len() as i32,
            bos_token_id: special.id_of("bos_token").map_or(-1, |id| id as i32),
            eos_token_id: special.id_of("eos_token").map_or(-1, |id| id as i32),
            eos_token_ids: special.eos_ids.iter().map(|&id| id as i32).collect(),
            chat_template: tokenizer.chat_template.clone(),
            kind: tokenizer.kind.clone(),
        })
    })
}

fn encode(tokenizer: &TextTokenizer, text: &[u8], add_special: bool) -> Result<Vec<i32>> {
    guard(|| tokenizer.encode(utf8(text, "the text")?, add_special))
}

fn decode(tokenizer: &TextTokenizer, ids: &[i32], skip_special: bool) -> Result<String> {
    guard(|| tokenizer.decode(ids, skip_special))
}

fn token_bytes(tokenizer: &TextTokenizer, id: i32) -> Result<Vec<u8>> {
    guard(|| Ok(tokenizer.token_bytes(id)))
}

fn token_piece(tokenizer: &TextTokenizer, id: i32) -> Result<String> {
    guard(|| Ok(tokenizer.pieces.get(id).map_or_else(String::new, |piece| piece.text.to_owned())))
}

fn token_to_id(tokenizer: &TextTokenizer, piece: &[u8]) -> Result<i32> {
    guard(|| {
        let id = std::str::from_utf8(piece).ok().and_then(|piece| tokenizer.token_to_id(piece));
        Ok(id.map_or(-1, |id| id as i32))
    })
}

fn is_special(tokenizer: &TextTokenizer, id: i32) -> Result<bool> {
    guard(|| Ok(tokenizer.pieces.get(id).is_some_and(|piece| piece.special)))
}

fn new_stream(skip_special: bool) -> Box<TokenStream> {
    Box::new(TokenStream::new(skip_special))
}

fn stream_push(stream: &mut TokenStream, tokenizer: &TextTokenizer, id: i32) -> Result<String> {
    guard(|| stream.push(tokenizer, id))
}

fn stream_finish(stream: &mut TokenStream, tokenizer: &TextTokenizer) -> Result<String> {
    guard(|| stream.finish(tokenizer))
}

fn compile_template(source: &[u8], tokenizer: &TextTokenizer) -> Result<Box<Template>> {
    guard(|| Template::compile(utf8(source, "the chat template")?, tokenizer).map(Box::new))
}

fn render_template(compiled: &Template, context_json: &[u8]) -> Result<String> {
    guard(|| compiled.render(utf8(context_json, "the context")?))
}

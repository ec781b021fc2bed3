//! Chat templates: messages to one prompt, as Transformers' apply_chat_template does.

use std::collections::BTreeMap;
use std::error::Error as _;

use minijinja::{Environment, ErrorKind, Value};

use crate::chat_env::{environment, replace_generation_tags, Raised, BASE_FUEL};
use crate::error::{Error, Kind, Result};
use crate::guard;
use crate::memory_limit::{limited, Limits};
use crate::tokenizer::TextTokenizer;

const NAME: &str = "chat template";
const MAX_SOURCE_BYTES: usize = 1 << 18;
/// minijinja walks long chains of operators, and frees deeply nested values, by recursion: this holds
/// the deepest that the bounds on source and fuel allow. Address space only, until it is used.
const STACK_BYTES: usize = 1 << 29;
/// What fuel doesn't count, for a template of MAX_SOURCE_BYTES and a small context; a long context
/// may take more, by the byte.
const BASE_LIMITS: Limits = Limits { bytes: 128 << 20, work: 1 << 30 };
const LIMITS_PER_CONTEXT_BYTE: Limits = Limits { bytes: 64, work: 512 };
const TOO_MUCH: &str =
    "the chat template ran over its bound of steps and memory: it loops or grows for too long";

pub struct Template {
    env: Environment<'static>,
    /// bos_token and the like.
    defaults: BTreeMap<String, Value>,
}

impl Template {
    pub fn compile(source: &str, tokenizer: &TextTokenizer) -> Result<Self> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(Error::invalid(format!(
                "{NAME}: {} bytes, over the limit of {MAX_SOURCE_BYTES}",
                source.len()
            )));
        }
        let mut env = environment().map_err(|e| describe(&e, Kind::Internal))?;
        on_large_stack(0, || {
            env.add_template_owned(NAME, replace_generation_tags(source))
                .map_err(|e| describe(&e, Kind::InvalidArgument))
        })?;
        let named = tokenizer.special.named.iter();
        let mut defaults: BTreeMap<String, Value> =
            named.map(|(name, text, _)| (name.clone(), Value::from(text.as_str()))).collect();
        defaults.insert("add_generation_prompt".to_owned(), Value::from(false));
        for name in ["tools", "documents"] {
            defaults.insert(name.to_owned(), Value::from(()));
        }
        Ok(Template { env, defaults })
    }

    pub fn render(&self, context_json: &str) -> Result<String> {
        on_large_stack(context_json.len(), || self.render_here(context_json))
    }

    fn render_here(&self, context_json: &str) -> Result<String> {
        let given: BTreeMap<String, Value> = serde_json::from_str(context_json)
            .map_err(|e| Error::invalid(format!("the chat template's context: {e}")))?;
        let mut context = self.defaults.clone();
        context.extend(given);
        let flag = |context: &BTreeMap<String, Value>, name: &str| {
            context.get(name).is_some_and(Value::is_true)
        };
        let continues = flag(&context, "continue_final_message");
        context.remove("continue_final_message");
        if continues && flag(&context, "add_generation_prompt") {
            return Err(Error::invalid(
                "continue_final_message and add_generation_prompt can't both be true: the one goes \
                 on with the last message, the other begins a new one",
            ));
        }
        let final_text = if continues { Some(final_text(&context)?) } else { None };
        let text = self.render_context(context, context_json.len())?;
        match final_text {
            Some(final_text) => cut_after(text, &final_text),
            None => Ok(text),
        }
    }

    fn render_context(&self, context: BTreeMap<String, Value>, bytes: usize) -> Result<String> {
        let mut env = self.env.clone();
        env.set_fuel(Some(BASE_FUEL + bytes as u64));
        let template =
            env.get_template(NAME).map_err(|e| describe(&e, Kind::Internal))?;
        template.render(Value::from(context)).map_err(|e| describe(&e, Kind::InvalidArgument))
    }
}

fn on_large_stack<T: Send>(
    context_bytes: usize,
    body: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let bytes = context_bytes as u64;
    let limits = Limits {
        bytes: BASE_LIMITS.bytes + bytes.saturating_mul(LIMITS_PER_CONTEXT_BYTE.bytes),
        work: BASE_LIMITS.work + bytes.saturating_mul(LIMITS_PER_CONTEXT_BYTE.work),
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("pm-template".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || {
                guard(|| limited(limits, body).unwrap_or_else(|_| Err(Error::invalid(TOO_MUCH))))
            })
            .map_err(|e| Error::new(Kind::Internal, format!("{NAME}: no thread: {e}")))?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The last message's text: its content, or the last text part of it.
fn final_text(context: &BTreeMap<String, Value>) -> Result<String> {
    let bad = |what: &str| Error::invalid(format!("continue_final_message: {what}"));
    let messages = context.get("messages").ok_or_else(|| bad("there are no messages"))?;
    let last = messages
        .try_iter()
        .ok()
        .and_then(Iterator::last)
        .ok_or_else(|| bad("there are no messages"))?;
    let content = last.get_attr("content").unwrap_or_default();
    if let Some(text) = content.as_str() {
        return Ok(text.to_owned());
    }
    let parts = content.try_iter().map_err(|_| bad("the last message has no text"))?;
    let texts = parts.filter_map(|part| part.get_attr("text").ok()?.as_str().map(str::to_owned));
    texts.last().ok_or_else(|| bad("the last message has no text"))
}

/// Cuts what the template put after the final message. A template may trim the message.
fn cut_after(mut text: String, final_text: &str) -> Result<String> {
    let trimmed = final_text.trim();
    let begin = text.rfind(trimmed).ok_or_else(|| {
        Error::invalid(
            "continue_final_message: the last message doesn't appear in the prompt: the chat \
             template changes it, so it can't be continued",
        )
    })?;
    let untrimmed_end = final_text.trim_start();
    let length = if text[begin..].starts_with(untrimmed_end) {
        untrimmed_end.len()
    } else {
        trimmed.len()
    };
    text.truncate(begin + length);
    Ok(text)
}

fn describe(error: &minijinja::Error, kind: Kind) -> Error {
    let mut source = error.source();
    while let Some(cause) = source {
        if cause.is::<Raised>() {
            let detail = error.detail().unwrap_or("no message");
            return Error::invalid(format!("the chat template refuses: {detail}"));
        }
        source = cause.source();
    }
    if error.kind() == ErrorKind::OutOfFuel {
        return Error::invalid(TOO_MUCH);
    }
    let line = error.line().map_or_else(String::new, |line| format!(", line {line}"));
    let detail = error.detail().map_or_else(String::new, |detail| format!(": {detail}"));
    Error::new(kind, format!("{NAME}{line}: {}{detail}", error.kind()))
}

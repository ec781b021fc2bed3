//! The Jinja environment that Transformers gives chat templates, on minijinja: whitespace rules,
//! `tojson`, `raise_exception`, `strftime_now`, `{% generation %}`, Python's methods and spellings;
//! and bounds on what a hostile template can cost.

use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use crate::python_text::{json_of, str_of, JsonOptions};

/// The work of one render beyond its input: about this many steps, or 64 times as many bytes.
pub const BASE_FUEL: u64 = 1_000_000;
const MAX_CALL_DEPTH: usize = 100;

/// Marks an error that the template raised itself by raise_exception().
#[derive(Debug)]
pub struct Raised;

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("raised by the template")
    }
}

impl std::error::Error for Raised {}

pub fn environment() -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_recursion_limit(MAX_CALL_DEPTH);
    env.set_unknown_method_callback(python_method);
    env.set_formatter(format_value);
    env.add_filter("tojson", tojson);
    env.add_filter("string", |state: &State, value: &Value| str_of(state, value));
    env.add_filter("join", join);
    env.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
        let error = Error::new(ErrorKind::InvalidOperation, message.to_string());
        Err(error.with_source(Raised))
    });
    env.add_function("strftime_now", strftime_now);
    Ok(env)
}

fn format_value(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => out.write_str(text).map_err(Error::from),
        None => out.write_str(&str_of(state, value)?).map_err(Error::from),
    }
}

fn tojson(state: &State, value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let mut options = JsonOptions {
        ensure_ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ..Default::default()
    };
    if let Some(indent) = kwargs.get::<Option<Value>>("indent")?.filter(|v| !v.is_none()) {
        options.indent = Some(match indent.as_usize() {
            Some(width) if width <= 64 => " ".repeat(width),
            Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "indent is over 64")),
            None => indent.to_string(),
        });
        options.item_separator = ",".to_owned();
    }
    if let Some(pair) = kwargs.get::<Option<Value>>("separators")?.filter(|v| !v.is_none()) {
        options.item_separator = pair.get_item_by_index(0)?.to_string();
        options.key_separator = pair.get_item_by_index(1)?.to_string();
    }
    kwargs.assert_all_used()?;
    json_of(state, value, &options).map(Value::from)
}

fn join(
    state: &State,
    values: &Value,
    separator: Option<Value>,
    attribute: Option<Value>,
) -> Result<String, Error> {
    let mut separator = separator.unwrap_or_else(|| Value::from(""));
    let mut attribute = attribute;
    if separator.is_kwargs() {
        let kwargs = Kwargs::try_from(separator)?;
        separator = kwargs.get::<Option<Value>>("d")?.unwrap_or_else(|| Value::from(""));
        attribute = kwargs.get("attribute")?;
    } else if let Some(kwargs) = attribute.clone().filter(Value::is_kwargs) {
        attribute = Kwargs::try_from(kwargs)?.get("attribute")?;
    }
    let separator = str_of(state, &separator)?;
    let mut joined = String::new();
    for (index, item) in values.try_iter()?.enumerate() {
        let item = match &attribute {
            Some(name) => item.get_item(name)?,
            None => item,
        };
        let text = str_of(state, &item)?;
        state.consume_fuel(1 + (separator.len() + text.len()) as u64 / 64)?;
        if index > 0 {
            joined.push_str(&separator);
        }
        joined.push_str(&text);
    }
    Ok(joined)
}

/// Python's methods: minijinja-contrib's, and a few that it lacks.
fn python_method(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        // minijinja charges a method's result when it exists: what can be huge is held up before.
        if let Some(bytes) = result_bytes(text, method, args) {
            if state.fuel_levels().is_some_and(|levels| bytes / 64 > levels.1) {
                return Err(Error::from(ErrorKind::OutOfFuel));
            }
        }
        if method == "join" && args.len() == 1 {
            return join(state, &args[0], Some(value.clone()), None).map(Value::from);
        }
    }
    if let (Some(text), [argument]) = (value.as_str(), args) {
        if let Some(part) = argument.as_str() {
            match method {
                "removeprefix" => return Ok(text.strip_prefix(part).unwrap_or(text).into()),
                "removesuffix" => return Ok(text.strip_suffix(part).unwrap_or(text).into()),
                "partition" => {
                    let (head, tail) = text.split_once(part).unwrap_or((text, ""));
                    let found = if text.contains(part) { part } else { "" };
                    return Ok(Value::from(vec![Value::from(head), Value::from(found), Value::from(tail)]));
                }
                _ => {}
            }
        }
    }
    if value.kind() == ValueKind::Map && method == "copy" && args.is_empty() {
        return Ok(value.clone());
    }
    unknown_method_callback(state, value, method, args)
}

/// How long the result of a method that can multiply its input will be, at most.
fn result_bytes(text: &str, method: &str, args: &[Value]) -> Option<u64> {
    match (method, args) {
        ("replace", [from, to, ..]) => {
            let (from, to) = (from.as_str()?, to.as_str()?);
            let matches = text.matches(from).count() as u64;
            Some(text.len() as u64 + matches.saturating_mul(to.len() as u64))
        }
        // Every number in a format may be a width.
        ("format", _) => text
            .split(|c: char| !c.is_ascii_digit())
            .filter(|digits| !digits.is_empty())
            .map(|digits| digits.parse().unwrap_or(u64::MAX))
            .reduce(u64::saturating_add),
        _ => None,
    }
}

/// The local time by C's strftime, whose directives Python's are.
fn strftime_now(format: String, _rest: Rest<Value>) -> Result<String, Error> {
    let bad = |what: &str| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {what}"));
    if format.len() > 256 {
        return Err(bad("the format is over 256 bytes"));
    }
    if format.is_empty() {
        return Ok(format);
    }
    let format = std::ffi::CString::new(format).map_err(|_| bad("the format holds a NUL"))?;
    let mut buffer = [0u8; 4096];
    // SAFETY: `now` and `local` are valid for the calls, which keep no pointer; strftime writes at
    // most `buffer.len()` bytes.
    let length = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut local: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&now, &mut local).is_null() {
            return Err(bad("no local time"));
        }
        libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), format.as_ptr(), &local)
    };
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Transformers marks assistant text by `{% generation %}...{% endgeneration %}`, to train on it;
/// for rendering they are a scope and no more, which in minijinja's words is `{% with %}`.
pub fn replace_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = match rest.as_bytes().get(1) {
            Some(b'#') => rest.find("#}").map_or(rest.len(), |end| end + 2),
            Some(b'%') => match tag_word(rest) {
                ("raw", _) => end_of_raw(rest),
                (word @ ("generation" | "endgeneration"), begin) => {
                    out.push_str(&rest[..begin]);
                    out.push_str(if word == "generation" { "with" } else { "endwith" });
                    rest = &rest[begin + word.len()..];
                    0
                }
                _ => end_of_tag(rest, "%}"),
            },
            Some(b'{') => end_of_tag(rest, "}}"),
            _ => 1,
        };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out + rest
}

/// The word that a block tag begins with, and where it stands.
fn tag_word(tag: &str) -> (&str, usize) {
    let body = tag[2..].trim_start_matches(['-', '+']).trim_start();
    let begin = tag.len() - body.len();
    let end = body.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(body.len());
    (&body[..end], begin)
}

fn end_of_raw(tag: &str) -> usize {
    let mut at = 2;
    while let Some(next) = tag[at..].find("{%") {
        at += next;
        if tag_word(&tag[at..]).0 == "endraw" {
            return at + end_of_tag(&tag[at..], "%}");
        }
        at += 2;
    }
    tag.len()
}

/// Where the tag ends, its string literals skipped.
fn end_of_tag(tag: &str, close: &str) -> usize {
    let bytes = tag.as_bytes();
    let mut quote = None;
    let mut at = 2;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, _) if bytes[at..].starts_with(close.as_bytes()) => return at + close.len(),
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

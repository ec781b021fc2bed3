//! Values as Python's str(), repr() and json.dumps() write them, for chat templates: they were
//! written for Jinja on Python.

use std::fmt::Write;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

const MAX_DEPTH: usize = 64;
/// What a byte written here costs in fuel, at most; as minijinja's own serializer.
const BYTES_PER_FUEL: u64 = 4;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Repr,
    Json,
}

pub struct JsonOptions {
    pub ensure_ascii: bool,
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
    pub sort_keys: bool,
}

impl Default for JsonOptions {
    fn default() -> Self {
        JsonOptions {
            ensure_ascii: false,
            indent: None,
            item_separator: ", ".to_owned(),
            key_separator: ": ".to_owned(),
            sort_keys: false,
        }
    }
}

/// str(value). An undefined value is empty, as in Jinja.
pub fn str_of(state: &State, value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(String::new()),
        ValueKind::String => Ok(value.to_string()),
        _ => write(state, value, Style::Repr, &JsonOptions::default()),
    }
}

/// json.dumps(value).
pub fn json_of(state: &State, value: &Value, options: &JsonOptions) -> Result<String, Error> {
    write(state, value, Style::Json, options)
}

fn write(
    state: &State,
    value: &Value,
    style: Style,
    options: &JsonOptions,
) -> Result<String, Error> {
    let fuel = state.fuel_levels().map_or(u64::MAX, |levels| levels.1);
    let limit = fuel.saturating_mul(BYTES_PER_FUEL).min(1 << 32) as usize;
    let mut writer = Writer { out: String::new(), limit, style, options };
    writer.value(value, 0)?;
    state.consume_fuel(writer.out.len() as u64 / BYTES_PER_FUEL)?;
    Ok(writer.out)
}

struct Writer<'a> {
    out: String,
    limit: usize,
    style: Style,
    options: &'a JsonOptions,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::new(ErrorKind::InvalidOperation, "a value is nested too deeply"));
        }
        if self.out.len() > self.limit {
            return Err(Error::from(ErrorKind::OutOfFuel));
        }
        let json = self.style == Style::Json;
        match value.kind() {
            ValueKind::None => self.out.push_str(if json { "null" } else { "None" }),
            ValueKind::Bool => {
                let name = match (value.is_true(), json) {
                    (true, true) => "true",
                    (true, false) => "True",
                    (false, true) => "false",
                    (false, false) => "False",
                };
                self.out.push_str(name);
            }
            ValueKind::Number => push_number(&mut self.out, value),
            ValueKind::String => {
                let text = value.to_str().unwrap_or_default();
                if json {
                    push_json_string(&mut self.out, &text, self.options.ensure_ascii);
                } else {
                    push_repr_string(&mut self.out, &text);
                }
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let tuple = !json && value.is_tuple();
                let (open, close) = if tuple { ('(', ')') } else { ('[', ']') };
                let mut count = 0;
                self.out.push(open);
                for item in value.try_iter()? {
                    self.separate(count, depth + 1);
                    self.value(&item, depth + 1)?;
                    count += 1;
                }
                if tuple && count == 1 {
                    self.out.push(',');
                }
                self.close(count, depth, close);
            }
            ValueKind::Map => self.map(value, depth)?,
            _ if json => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("a value of type {} is not JSON serializable", value.kind()),
                ))
            }
            ValueKind::Undefined => self.out.push_str("Undefined"),
            _ => {
                let _ = write!(self.out, "{value}");
            }
        }
        Ok(())
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.options.sort_keys {
            keys.sort();
        }
        self.out.push('{');
        for (index, key) in keys.iter().enumerate() {
            self.separate(index, depth + 1);
            if self.style == Style::Repr || key.as_str().is_some() {
                self.value(key, depth + 1)?;
            } else {
                self.out.push('"');
                self.value(key, depth + 1)?;
                self.out.push('"');
            }
            let separator =
                if self.style == Style::Json { self.options.key_separator.as_str() } else { ": " };
            self.out.push_str(separator);
            self.value(&value.get_item(key)?, depth + 1)?;
        }
        self.close(keys.len(), depth, '}');
        Ok(())
    }

    /// What stands before item number `index` of a container.
    fn separate(&mut self, index: usize, depth: usize) {
        if self.style == Style::Repr {
            if index > 0 {
                self.out.push_str(", ");
            }
            return;
        }
        if index > 0 {
            self.out.push_str(&self.options.item_separator);
        }
        self.new_line(depth);
    }

    fn close(&mut self, count: usize, depth: usize, bracket: char) {
        if count > 0 && self.style == Style::Json {
            self.new_line(depth);
        }
        self.out.push(bracket);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.options.indent {
            self.out.push('\n');
            (0..depth).for_each(|_| self.out.push_str(indent));
        }
    }
}

fn push_number(out: &mut String, value: &Value) {
    if value.is_integer() {
        let _ = write!(out, "{value}");
        return;
    }
    let number = f64::try_from(value.clone()).unwrap_or(f64::NAN);
    if number.is_nan() {
        out.push_str("nan");
    } else if number.is_infinite() {
        out.push_str(if number > 0.0 { "inf" } else { "-inf" });
    } else {
        push_float(out, number);
    }
}

/// The shortest digits that give the same number, in scientific notation below 1e-4 and from 1e16.
fn push_float(out: &mut String, number: f64) {
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let fixed = format!("{number}");
        out.push_str(&fixed);
        if !fixed.contains('.') {
            out.push_str(".0");
        }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{digits}e{sign}{:02}", exponent.abs());
    }
}

fn push_json_string(out: &mut String, text: &str, ensure_ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || (ensure_ascii && c as u32 >= 0x7f && c != '\u{7f}') => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn push_repr_string(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

//! Reads the `tokenizer.*` keys of a GGUF file (version 2 or 3), nothing else of it. Every count and
//! length is held against what the file still has, so that a hostile header allocates nothing.
//! Format: ggml's docs/gguf.md.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use crate::error::{Error, Kind, Result};

const MAX_KEYS: u64 = 65_536;
const MAX_KEY_BYTES: u64 = 65_535;
const MAX_ARRAY_DEPTH: u32 = 4;
/// A vocabulary of more tokens than this is not believed.
pub const MAX_TOKENS: u64 = 1 << 22;

/// Strings one after the other in one allocation.
#[derive(Default)]
pub struct Strings {
    text: String,
    ends: Vec<usize>,
}

impl Strings {
    pub fn len(&self) -> usize {
        self.ends.len()
    }
    pub fn get(&self, index: usize) -> &str {
        let begin = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.text[begin..self.ends[index]]
    }
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|index| self.get(index))
    }
}

pub enum Value {
    Bool(bool),
    Int(i64),
    String(String),
    Strings(Strings),
    Numbers(Vec<f64>),
    /// Of a type that no tokenizer key has.
    Other,
}

/// The `tokenizer.*` keys by name.
pub struct Metadata {
    values: HashMap<String, Value>,
}

impl Metadata {
    pub fn read(path: &str) -> Result<Self> {
        let open = |e: std::io::Error| {
            let kind =
                if e.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::Io };
            Error::new(kind, format!("{path}: {e}"))
        };
        let mut file = File::open(path).map_err(open)?;
        let length = file.seek(SeekFrom::End(0)).map_err(open)?;
        file.rewind().map_err(open)?;
        let source = BufReader::with_capacity(1 << 16, file);
        Reader { source, length, offset: 0 }.metadata().map_err(|e| e.within(path))
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    pub fn string(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong_type(key, "a string")),
        }
    }

    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(wrong_type(key, "a bool")),
        }
    }

    /// A token id, which must be below `count`.
    pub fn token_id(&self, key: &str, count: usize) -> Result<Option<u32>> {
        match self.get(key) {
            None => Ok(None),
            // Writers mark an absent token by -1, or by all ones in an unsigned type.
            Some(Value::Int(-1 | 0xffff_ffff)) => Ok(None),
            Some(Value::Int(id)) if (0..count as i64).contains(id) => Ok(Some(*id as u32)),
            Some(Value::Int(id)) => {
                Err(Error::corrupt(format!("key {key}: token id {id}, but there are {count} tokens")))
            }
            Some(_) => Err(wrong_type(key, "an integer")),
        }
    }

    pub fn strings(&self, key: &str) -> Result<Option<&Strings>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Strings(strings)) => Ok(Some(strings)),
            Some(_) => Err(wrong_type(key, "an array of strings")),
        }
    }

    /// An array of numbers with one element a token.
    pub fn numbers(&self, key: &str, count: usize) -> Result<Option<&[f64]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Numbers(numbers)) if numbers.len() == count => Ok(Some(numbers)),
            Some(Value::Numbers(numbers)) => Err(Error::corrupt(format!(
                "key {key}: {} elements, but there are {count} tokens",
                numbers.len()
            ))),
            Some(_) => Err(wrong_type(key, "an array of numbers")),
        }
    }
}

fn wrong_type(key: &str, wanted: &str) -> Error {
    Error::corrupt(format!("key {key}: expected {wanted}"))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl Type {
    /// By GGUF's type number.
    const ALL: [Type; 13] = {
        use Type::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64]
    };

    /// The bytes that a value takes, at least.
    fn min_bytes(self) -> u64 {
        match self {
            Type::U8 | Type::I8 | Type::Bool => 1,
            Type::U16 | Type::I16 => 2,
            Type::U32 | Type::I32 | Type::F32 => 4,
            Type::U64 | Type::I64 | Type::F64 | Type::String => 8,
            Type::Array => 12,
        }
    }
}

struct Reader<R> {
    source: BufReader<R>,
    length: u64,
    offset: u64,
}

impl<R: Read + Seek> Reader<R> {
    fn metadata(mut self) -> Result<Metadata> {
        if self.length < 24 || self.array::<4>()? != *b"GGUF" {
            return Err(Error::corrupt("not a GGUF file: it doesn't begin with \"GGUF\""));
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(Error::unsupported(format!(
                "GGUF version {version} (offset 4): versions 2 and 3 are supported"
            )));
        }
        let _tensors = self.u64()?;
        let keys = self.u64()?;
        if keys > MAX_KEYS || keys > self.remaining() / 13 {
            return Err(self.corrupt(format!("{keys} metadata keys, more than the file can hold")));
        }
        let mut values = HashMap::new();
        for _ in 0..keys {
            let at = self.offset;
            let key = self.string(MAX_KEY_BYTES).map_err(|e| e.within("a metadata key"))?;
            let value = self
                .value(key.starts_with("tokenizer."))
                .map_err(|e| e.within(&format!("key {key}")))?;
            if let Some(value) = value {
                if values.insert(key.clone(), value).is_some() {
                    return Err(Error::corrupt(format!("key {key} at offset {at}: given twice")));
                }
            }
        }
        Ok(Metadata { values })
    }

    fn remaining(&self) -> u64 {
        self.length - self.offset
    }

    fn corrupt(&self, what: String) -> Error {
        Error::corrupt(format!("offset {}: {what}", self.offset))
    }

    /// Refuses to go `bytes` further if the file ends before.
    fn need(&self, bytes: u64) -> Result<()> {
        if bytes <= self.remaining() {
            return Ok(());
        }
        let (offset, remaining) = (self.offset, self.remaining());
        Err(Error::corrupt(format!("offset {offset}: {bytes} bytes wanted, {remaining} left")))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.need(bytes.len() as u64)?;
        self.source.read_exact(bytes).map_err(|e| {
            Error::new(Kind::Io, format!("offset {}: can't be read: {e}", self.offset))
        })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        self.need(bytes)?;
        self.source.seek_relative(bytes as i64).map_err(|e| {
            Error::new(Kind::Io, format!("offset {}: can't be skipped: {e}", self.offset))
        })?;
        self.offset += bytes;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn string(&mut self, limit: u64) -> Result<String> {
        let mut text = String::new();
        self.append_string(limit, &mut text)?;
        Ok(text)
    }

    fn append_string(&mut self, limit: u64, text: &mut String) -> Result<()> {
        let at = self.offset;
        let length = self.u64()?;
        self.need(length)?;
        if length > limit {
            return Err(Error::corrupt(format!(
                "offset {at}: a string of {length} bytes, over the limit of {limit}"
            )));
        }
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        match std::str::from_utf8(&bytes) {
            Ok(valid) => text.push_str(valid),
            // Some vocabularies hold tokens that are half a character.
            Err(_) => text.push_str(&String::from_utf8_lossy(&bytes)),
        }
        Ok(())
    }

    fn value_type(&mut self) -> Result<Type> {
        let number = self.u32()?;
        Type::ALL
            .get(number as usize)
            .copied()
            .ok_or_else(|| self.corrupt(format!("value type {number}: expected 0 to 12")))
    }

    /// The next value, or None if it isn't `wanted`.
    fn value(&mut self, wanted: bool) -> Result<Option<Value>> {
        let kind = self.value_type()?;
        if !wanted {
            self.skip_value(kind, 0)?;
            return Ok(None);
        }
        Ok(Some(match kind {
            Type::String => Value::String(self.string(1 << 24)?),
            Type::Array => self.array_value()?,
            Type::Bool => Value::Bool(self.array::<1>()?[0] != 0),
            Type::F32 | Type::F64 => self.number(kind).map(|_| Value::Other)?,
            Type::U64 => Value::Int(i64::try_from(self.u64()?).unwrap_or(i64::MAX)),
            Type::I64 => Value::Int(i64::from_le_bytes(self.array()?)),
            _ => Value::Int(self.number(kind)? as i64),
        }))
    }

    fn number(&mut self, kind: Type) -> Result<f64> {
        Ok(match kind {
            Type::U8 | Type::Bool => f64::from(self.array::<1>()?[0]),
            Type::I8 => f64::from(i8::from_le_bytes(self.array()?)),
            Type::U16 => f64::from(u16::from_le_bytes(self.array()?)),
            Type::I16 => f64::from(i16::from_le_bytes(self.array()?)),
            Type::U32 => f64::from(self.u32()?),
            Type::I32 => f64::from(i32::from_le_bytes(self.array()?)),
            Type::F32 => f64::from(f32::from_le_bytes(self.array()?)),
            Type::U64 => self.u64()? as f64,
            Type::I64 => i64::from_le_bytes(self.array()?) as f64,
            Type::F64 => f64::from_le_bytes(self.array()?),
            Type::String | Type::Array => unreachable!("not a number"),
        })
    }

    /// The element type and count of an array, the count held against what the file has left.
    fn array_header(&mut self) -> Result<(Type, u64)> {
        let kind = self.value_type()?;
        let count = self.u64()?;
        if count > self.remaining() / kind.min_bytes() {
            return Err(self.corrupt(format!("an array of {count}, more than the file can hold")));
        }
        Ok((kind, count))
    }

    fn array_value(&mut self) -> Result<Value> {
        let (kind, count) = self.array_header()?;
        match kind {
            Type::Array => {
                for _ in 0..count {
                    self.skip_value(kind, 1)?;
                }
                Ok(Value::Other)
            }
            _ if count > MAX_TOKENS => {
                Err(self.corrupt(format!("an array of {count}, over the limit of {MAX_TOKENS}")))
            }
            Type::String => {
                let mut strings = Strings::default();
                for _ in 0..count {
                    self.append_string(1 << 20, &mut strings.text)?;
                    strings.ends.push(strings.text.len());
                }
                Ok(Value::Strings(strings))
            }
            _ => {
                let numbers: Result<Vec<f64>> = (0..count).map(|_| self.number(kind)).collect();
                Ok(Value::Numbers(numbers?))
            }
        }
    }

    fn skip_value(&mut self, kind: Type, depth: u32) -> Result<()> {
        match kind {
            Type::String => {
                let length = self.u64()?;
                self.skip(length)
            }
            Type::Array => {
                if depth >= MAX_ARRAY_DEPTH {
                    return Err(self.corrupt("arrays nested too deeply".to_owned()));
                }
                let (element, count) = self.array_header()?;
                if element == Type::String || element == Type::Array {
                    (0..count).try_for_each(|_| self.skip_value(element, depth + 1))
                } else {
                    self.skip(count * element.min_bytes())
                }
            }
            _ => self.skip(kind.min_bytes()),
        }
    }
}

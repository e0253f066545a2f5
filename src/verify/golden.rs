//! Reading recorded data: a safetensors file whose metadata holds JSON.

use std::collections::HashMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde_json::Value as Json;

use crate::error::io_reason;
use crate::{Error, ErrorKind, Result};

/// Where a tensor lies in the file.
#[derive(Clone, Debug)]
struct Entry {
    dtype: Dtype,
    dims: Vec<usize>,
    /// First byte and the one after the last.
    bytes: (usize, usize),
}

/// A recorded file in memory.
#[derive(Clone, Debug)]
pub struct Golden {
    name: String,
    bytes: Vec<u8>,
    entries: HashMap<String, Entry>,
    /// Tensor names in the order of the file's data.
    keys: Vec<String>,
    metadata: HashMap<String, String>,
}

impl Golden {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or is no whole safetensors file.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let bytes =
            std::fs::read(path).map_err(|e| Error::new(format!("cannot read {name}: {}", io_reason(&e))))?;
        Self::parse(name, bytes)
    }

    /// Takes a file's bytes; `name` is for messages.
    ///
    /// # Errors
    /// When they are no whole safetensors file.
    pub fn parse(name: impl Into<String>, bytes: Vec<u8>) -> Result<Self> {
        let name = name.into();
        let fail = |error: SafeTensorError| {
            let why = match error {
                SafeTensorError::MetadataIncompleteBuffer => {
                    "its tensors and its length do not agree, it is cut off"
                }
                SafeTensorError::HeaderTooSmall => "it is shorter than a header",
                SafeTensorError::InvalidHeaderLength => "its header is cut off",
                _ => "its header is none of a safetensors file",
            };
            Error::new(format!("{name} cannot be used: {why}"))
                .hint("give files in the safetensors format, as recorded from the reference")
                .of_kind(ErrorKind::NotARecording)
        };
        let (start, header) = SafeTensors::read_metadata(&bytes).map_err(fail)?;
        let start = start + 8; // the length itself
        let entries: HashMap<String, Entry> = header
            .tensors()
            .into_iter()
            .map(|(key, info)| {
                let bytes = (start + info.data_offsets.0, start + info.data_offsets.1);
                (key, Entry { dtype: info.dtype, dims: info.shape.clone(), bytes })
            })
            .collect();
        let mut keys: Vec<String> = entries.keys().cloned().collect();
        keys.sort_by_key(|k| (entries[k].bytes, k.clone()));
        let metadata = header.metadata().clone().unwrap_or_default();
        Ok(Self { name, bytes, entries, keys, metadata })
    }

    /// The file, as it was named.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tensor names in the order of the file.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(String::as_str)
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether the metadata has an entry of that name.
    pub fn has_metadata(&self, key: &str) -> bool {
        self.metadata.contains_key(key)
    }

    /// A metadata entry, parsed.
    ///
    /// # Errors
    /// When it is missing, or no JSON.
    pub fn json(&self, key: &str) -> Result<Json> {
        let text =
            self.metadata.get(key).ok_or_else(|| self.error(format!("its metadata has no '{key}'")))?;
        serde_json::from_str(text).map_err(|e| self.error(format!("'{key}' in its metadata is no JSON: {e}")))
    }

    /// A metadata entry that is a whole number from 1 to `most`.
    ///
    /// # Errors
    /// When it is missing or something else.
    pub fn count(&self, key: &str, most: u64) -> Result<u64> {
        let value = self.json(key)?;
        let count = value.as_u64().filter(|n| (1..=most).contains(n));
        count.ok_or_else(|| {
            self.error(format!("'{key}' in its metadata is {value}, not a number from 1 to {most}"))
        })
    }

    /// An error about this file.
    pub fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::new(format!("{} cannot be used: {what}", self.name))
    }

    fn entry(&self, key: &str) -> Result<&Entry> {
        self.entries.get(key).ok_or_else(|| self.error(format!("it has no tensor {key}")))
    }

    /// A tensor's extents.
    ///
    /// # Errors
    /// When it is missing.
    pub fn dims(&self, key: &str) -> Result<&[usize]> {
        Ok(&self.entry(key)?.dims)
    }

    /// Checks a tensor's extents.
    ///
    /// # Errors
    /// When it is missing, or has others.
    pub fn expect_dims(&self, key: &str, dims: &[usize]) -> Result<()> {
        let found = self.dims(key)?;
        if found == dims {
            return Ok(());
        }
        Err(self.error(format!("{key} has the shape {found:?}, but the network's is {dims:?}")))
    }

    fn data(&self, key: &str, dtype: Dtype) -> Result<&[u8]> {
        let entry = self.entry(key)?;
        if entry.dtype != dtype {
            return Err(self.error(format!("{key} has the type {:?}, not {dtype:?}", entry.dtype)));
        }
        Ok(&self.bytes[entry.bytes.0..entry.bytes.1])
    }

    /// A tensor of floats.
    ///
    /// # Errors
    /// When it is missing or of another type.
    pub fn floats(&self, key: &str) -> Result<Vec<f32>> {
        let bytes = self.data(key, Dtype::F32)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    /// A tensor of bytes.
    ///
    /// # Errors
    /// When it is missing or of another type.
    pub fn bytes(&self, key: &str) -> Result<Vec<u8>> {
        Ok(self.data(key, Dtype::U8)?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
    }

    #[test]
    fn reads_tensors_and_metadata() {
        let header = r#"{"__metadata__":{"batch":"2","config":"{\"ch\": 4}"},
            "b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]},
            "a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}"#;
        let data = [1.5f32.to_le_bytes().as_slice(), &(-2.0f32).to_le_bytes(), &[7, 8, 9]].concat();
        let g = Golden::parse("x", file(header, &data)).unwrap();
        assert_eq!(g.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(g.floats("a").unwrap(), [1.5, -2.0]);
        assert_eq!(g.bytes("b").unwrap(), [7, 8, 9]);
        assert_eq!(g.count("batch", 9).unwrap(), 2);
        assert_eq!(g.json("config").unwrap()["ch"], 4);
        for (error, text) in [
            (g.floats("b").unwrap_err(), "x cannot be used: b has the type U8, not F32"),
            (g.floats("c").unwrap_err(), "x cannot be used: it has no tensor c"),
            (g.count("steps", 9).unwrap_err(), "x cannot be used: its metadata has no 'steps'"),
            (
                g.count("batch", 1).unwrap_err(),
                "x cannot be used: 'batch' in its metadata is 2, not a number from 1 to 1",
            ),
        ] {
            assert_eq!(error.message(), text);
        }
        assert!(g.expect_dims("a", &[2]).unwrap_err().message().contains("[2, 1]"));
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let whole = file(header, &[0; 8]);
        assert!(Golden::parse("x", whole.clone()).is_ok());
        for cut in 0..whole.len() {
            let error = Golden::parse("x", whole[..cut].to_vec()).unwrap_err();
            assert!(error.message().starts_with("x cannot be used: "), "{error}");
        }
        for bytes in [b"\x89PNG\r\n\x1a\n and more".to_vec(), vec![0xff; 64], file("{", &[]), file("[]", &[])]
        {
            assert!(Golden::parse("x", bytes).is_err());
        }
        // A shape that does not fit the bytes, and bytes nobody owns.
        assert!(Golden::parse("x", file(&header.replace("[2]", "[3]"), &[0; 8])).is_err());
        assert!(Golden::parse("x", file(header, &[0; 12])).is_err());
    }
}

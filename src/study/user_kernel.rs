//! A user kernel, launched once on the emulator.

use std::str::FromStr;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::run::{Record, counting_emulator};
use crate::device::executable::Executable;
use crate::device::{Arg, BUFFER_ALIGN, Buffer, BufferRef, Launch, Program, Space, Target};
use crate::kernels::{Kernel, ParamKind};
use crate::model::Counted;
use crate::{Error, Result};

/// Element type of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// bfloat16.
    Bf16,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 32-bit integer.
    U32,
    /// Byte.
    U8,
}

impl Element {
    fn bytes(self) -> u64 {
        match self {
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::U8 => 1,
        }
    }

    fn encode(self, v: f64) -> Vec<u8> {
        match self {
            Self::F32 => (v as f32).to_le_bytes().to_vec(),
            Self::F16 => half::f16::from_f64(v).to_le_bytes().to_vec(),
            Self::Bf16 => half::bf16::from_f64(v).to_le_bytes().to_vec(),
            Self::I32 => (v as i32).to_le_bytes().to_vec(),
            Self::U32 => (v as u32).to_le_bytes().to_vec(),
            Self::U8 => vec![v as u8],
        }
    }
}

/// What is in a buffer before the launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// Random: -1 to 1, integers 0 to 99.
    Random,
    /// Zeros.
    Zero,
    /// 0, 1, 2, …
    Iota,
    /// Nothing: reading it is an error.
    Empty,
}

/// An argument of a launch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Argument {
    /// A null pointer.
    Null,
    /// A buffer.
    Buffer(Element, u64, Init),
    /// A number.
    Value(Arg),
}

impl FromStr for Argument {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fail = || {
            Error::new(format!("cannot read the argument '{text}'")).hint(
                "arguments are buf:f32:1024 (elements f32, f16, bf16, i32, u32, u8; then perhaps :random, :zero, :iota \
                 or :empty), i32:5, u32:5, f32:0.5, null",
            )
        };
        let parts: Vec<&str> = text.split(':').collect();
        Ok(match parts[..] {
            ["null"] => Self::Null,
            ["i32", v] => Self::Value(Arg::I32(v.parse().map_err(|_| fail())?)),
            ["u32", v] => Self::Value(Arg::U32(v.parse().map_err(|_| fail())?)),
            ["f32", v] => Self::Value(Arg::F32(v.parse().map_err(|_| fail())?)),
            ["buf", element, length] | ["buf", element, length, _] => {
                let element = match element {
                    "f32" => Element::F32,
                    "f16" => Element::F16,
                    "bf16" => Element::Bf16,
                    "i32" => Element::I32,
                    "u32" => Element::U32,
                    "u8" => Element::U8,
                    _ => return Err(fail()),
                };
                let init = match parts.get(3) {
                    None | Some(&"random") => Init::Random,
                    Some(&"zero") => Init::Zero,
                    Some(&"iota") => Init::Iota,
                    Some(&"empty") => Init::Empty,
                    _ => return Err(fail()),
                };
                let length: u64 = length.parse().map_err(|_| fail())?;
                if length == 0 || length > 1 << 32 {
                    return Err(fail());
                }
                Self::Buffer(element, length, init)
            }
            _ => return Err(fail()),
        })
    }
}

/// Runs one launch of a kernel over new buffers.
///
/// # Errors
/// When the arguments do not fit the kernel, or the emulator finds a fault.
pub fn run(
    kernel: &'static Kernel,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    arguments: &[Argument],
    seed: u64,
) -> Result<Record> {
    if arguments.len() != kernel.params.len() {
        return Err(Error::new(format!(
            "{} takes {} arguments, but there are {}",
            kernel.name,
            kernel.params.len(),
            arguments.len()
        ))
        .hint(format!("give {}", wanted(kernel, "").join(" "))));
    }
    let mut buffers = Vec::new();
    let mut data: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut args = Vec::new();
    let mut offset = 0u64;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for (param, argument) in kernel.params.iter().zip(arguments) {
        args.push(match *argument {
            Argument::Null => Arg::Null,
            Argument::Value(arg) => arg,
            Argument::Buffer(element, length, init) => {
                let bytes = element.bytes() * length;
                let name = param.name.to_owned();
                buffers.push(Buffer { name, space: Space::State, offset, bytes });
                let mut value = |i: u64| match (init, element) {
                    (Init::Random, Element::F32 | Element::F16 | Element::Bf16) => {
                        rng.random_range(-1.0..1.0)
                    }
                    (Init::Random, _) => f64::from(rng.random_range(0..100u32)),
                    (Init::Iota, _) => i as f64,
                    _ => 0.0,
                };
                if init != Init::Empty {
                    data.push((offset, (0..length).flat_map(|i| element.encode(value(i))).collect()));
                }
                offset = (offset + bytes).next_multiple_of(BUFFER_ALIGN);
                Arg::Buffer(BufferRef { buffer: (buffers.len() - 1) as u32, offset: 0, bytes })
            }
        });
    }
    let launch = Launch::dynamic(kernel, args).grid(grid).block(block).shared(shared_bytes).label("once");
    launch.check(&buffers, Target::default())?;
    let program = Program {
        name: kernel.name.to_owned(),
        target: Target::default(),
        buffers,
        launches: vec![launch],
        arena_bytes: 0,
        state_bytes: offset,
    };
    let executable = Executable::new(&counting_emulator(), program)?;
    for (at, bytes) in data {
        executable.state().write(at, &bytes)?;
    }
    executable.run()?;
    let mut record = Record::of(&executable)?;
    // No plan says what it moves: what its buffers hold, or its traffic where that is less.
    let mut program = (*record.program).clone();
    let held: u64 = program.buffers.iter().map(|b| b.bytes).sum();
    for launch in &mut program.launches {
        launch.min_bytes = held.min(record.counts().traffic_bytes());
    }
    let counted = Counted::of_run(&program, executable.counters().unwrap_or_default());
    record.predict_from(&program, &counted);
    Ok(record)
}

/// An example of each argument that a kernel takes, with its name; `before` stands in front of each.
pub fn wanted(kernel: &Kernel, before: &str) -> Vec<String> {
    kernel.params.iter().map(|p| format!("{before}{} ({})", example(p.kind), p.name)).collect()
}

fn example(kind: ParamKind) -> &'static str {
    match kind {
        ParamKind::Pointer => "buf:f32:1024",
        ParamKind::Int32 => "i32:5",
        ParamKind::Float32 => "f32:0.5",
        ParamKind::Bytes(_) => "(cannot be given)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let read = |text: &str| text.parse::<Argument>();
        assert_eq!(read("i32:-5"), Ok(Argument::Value(Arg::I32(-5))));
        assert_eq!(read("f32:0.5"), Ok(Argument::Value(Arg::F32(0.5))));
        assert_eq!(read("null"), Ok(Argument::Null));
        assert_eq!(read("buf:f16:64:iota"), Ok(Argument::Buffer(Element::F16, 64, Init::Iota)));
        for bad in ["", "i32", "i32:x", "buf:f32", "buf:f99:3", "buf:f32:0", "buf:f32:3:ones", "f64:1"] {
            let error = read(bad).unwrap_err();
            assert_eq!(error.message(), format!("cannot read the argument '{bad}'"));
        }
    }
}

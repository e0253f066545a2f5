//! Kernel arguments: what a device gets ([`Arg`]), and the typed ones that the structs of
//! [`args`](super::args) are made of. What a pointer is there for is its type: the fewest bytes a launch
//! has to move follow from it.

/// The whole of a buffer of a program or a range of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferRef {
    /// Index into the program's buffers.
    pub buffer: u32,
    /// First byte within the buffer.
    pub offset: u64,
    /// Length in bytes. The kernel may touch `[offset, offset + bytes)` and nothing else.
    pub bytes: u64,
}

/// One kernel argument, as a device gets it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// A null pointer: an optional tensor that is absent.
    Null,
    /// A pointer to device memory.
    Buffer(BufferRef),
    /// A signed 32-bit integer.
    I32(i32),
    /// An unsigned 32-bit integer.
    U32(u32),
    /// A 32-bit float.
    F32(f32),
}

/// A tensor that a kernel reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct In(pub BufferRef);

/// A tensor that a kernel writes, whatever was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Out(pub BufferRef);

/// A tensor that a kernel updates in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InOut(pub BufferRef);

/// Memory that a kernel uses for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scratch(pub BufferRef);

/// A gradient that a kernel writes: the first write to one stores, later ones add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Replaces what is there.
    Store(BufferRef),
    /// Adds to what is there.
    Add(BufferRef),
}

impl Write {
    /// The memory.
    pub fn buffer(self) -> BufferRef {
        let (Self::Store(to) | Self::Add(to)) = self;
        to
    }

    /// Whether it adds.
    pub fn adds(self) -> bool {
        matches!(self, Self::Add(_))
    }
}

/// What a parameter takes.
pub trait Argument: Copy {
    /// As a device gets it.
    fn arg(self) -> Arg;

    /// Fewest bytes of it that a launch moves: what it reads and what it writes, once each.
    fn traffic(self) -> u64 {
        0
    }
}

macro_rules! pointer {
    ($($kind:ident $times:literal),*) => {$(
        impl Argument for $kind {
            fn arg(self) -> Arg {
                Arg::Buffer(self.0)
            }

            fn traffic(self) -> u64 {
                $times * self.0.bytes
            }
        }
    )*};
}
// Scratch memory leaves the chip once where it is too large to stay there.
pointer!(In 1, Out 1, InOut 2, Scratch 1);

macro_rules! number {
    ($($kind:ident $arg:ident),*) => {$(
        impl Argument for $kind {
            fn arg(self) -> Arg {
                Arg::$arg(self)
            }
        }
    )*};
}
number!(i32 I32, u32 U32, f32 F32);

impl Argument for Write {
    fn arg(self) -> Arg {
        Arg::Buffer(self.buffer())
    }

    fn traffic(self) -> u64 {
        self.buffer().bytes * if self.adds() { 2 } else { 1 }
    }
}

impl<T: Argument> Argument for Option<T> {
    fn arg(self) -> Arg {
        self.map_or(Arg::Null, T::arg)
    }

    fn traffic(self) -> u64 {
        self.map_or(0, T::traffic)
    }
}

/// The arguments of a launch in the order of the kernel's parameters, and the fewest bytes they move.
#[derive(Clone, Debug, Default)]
pub struct ArgList {
    /// The arguments.
    pub args: Vec<Arg>,
    /// See [`Argument::traffic`].
    pub min_bytes: u64,
}

impl ArgList {
    pub(super) fn push(&mut self, argument: impl Argument) {
        self.args.push(argument.arg());
        self.min_bytes += argument.traffic();
    }

    /// The integer that says whether the given gradients are added to; None where they differ.
    pub(super) fn push_flag(&mut self, gradients: &[Option<Write>]) -> Option<()> {
        let mut adds = gradients.iter().flatten().map(|w| w.adds());
        let first = adds.next().unwrap_or(false);
        self.args.push(Arg::I32(i32::from(first)));
        adds.all(|other| other == first).then_some(())
    }
}

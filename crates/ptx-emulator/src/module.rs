//! Modules of PTX, and their kernels decoded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::decode::decode;
use crate::error::{Error, ErrorKind, Place, Result};
use crate::isa::{Code, variable_base};
use crate::memory::Memory;

/// A module of PTX with the memory of its variables.
#[derive(Clone)]
pub struct Module {
    inner: Arc<Inner>,
    source_root: Arc<str>,
}

struct Inner {
    name: String,
    ptx: ptx::Module,
    /// Address of each module variable.
    addresses: HashMap<String, u64>,
    /// Module variables in order, with their memory.
    variables: Vec<(ptx::Variable, Memory)>,
    /// The kernels decoded so far.
    codes: Mutex<HashMap<String, Arc<Code>>>,
}

/// A kernel, decoded. It keeps its module.
#[derive(Clone)]
pub struct Kernel {
    module: Module,
    pub(crate) code: Arc<Code>,
}

impl Module {
    /// Reads a module. Kernels are decoded when they are asked for.
    ///
    /// # Errors
    /// When the text is not PTX.
    pub fn from_ptx(ptx: &str) -> Result<Self> {
        Self::named("module", ptx)
    }

    /// The same, with the name of its source file for messages.
    ///
    /// # Errors
    /// When the text is not PTX.
    pub fn named(name: &str, ptx: &str) -> Result<Self> {
        let parsed = ptx::Module::parse(ptx).map_err(|e| {
            let place = Place { ptx_line: e.line, detail: e.message.clone(), ..Place::default() };
            Error::new(ErrorKind::Ptx, format!("{name}: {e}")).at(place)
        })?;
        let mut addresses = HashMap::new();
        let mut variables = Vec::new();
        for v in &parsed.variables {
            if matches!(v.space, ptx::Space::Global | ptx::Space::Const) && v.bytes > 0 {
                addresses.insert(v.name.clone(), variable_base(variables.len()));
                let memory = Memory::new(u64::from(v.bytes))?;
                let mut init = v.init.clone();
                init.resize(v.bytes as usize, 0);
                memory.upload(0, &init)?;
                variables.push((v.clone(), memory));
            }
        }
        let codes = Mutex::default();
        let inner = Inner { name: name.to_owned(), ptx: parsed, addresses, variables, codes };
        Ok(Self { inner: Arc::new(inner), source_root: "".into() })
    }

    /// The same, with messages and counters that name source files from below that folder on: with `src/`, the file
    /// /home/me/src/a/b.cuh is a/b.cuh. It may be any part of a path; a file outside it keeps its name.
    #[must_use]
    pub fn with_source_root(mut self, folder: &str) -> Self {
        self.source_root = folder.into();
        self
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// What was read.
    pub fn ptx(&self) -> &ptx::Module {
        &self.inner.ptx
    }

    /// The kernel of that name.
    ///
    /// # Errors
    /// When there is none, or the emulator does not know an instruction of it: names the line of the PTX.
    pub fn kernel(&self, name: &str) -> Result<Kernel> {
        let inner = &*self.inner;
        let mut codes = inner.codes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(code) = codes.get(name) {
            return Ok(Kernel { module: self.clone(), code: Arc::clone(code) });
        }
        let Some(f) = inner.ptx.kernels().find(|f| f.name == name) else {
            let what = format!("{} has no kernel {name}", inner.name);
            return Err(Error::new(ErrorKind::UnknownKernel, what));
        };
        let code = Arc::new(decode(&inner.ptx, &inner.name, f, &inner.addresses)?);
        codes.insert(name.to_owned(), Arc::clone(&code));
        Ok(Kernel { module: self.clone(), code })
    }

    pub(crate) fn source_root(&self) -> &str {
        &self.source_root
    }

    pub(crate) fn variables(&self) -> &[(ptx::Variable, Memory)] {
        &self.inner.variables
    }
}

impl Kernel {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.code.name
    }

    /// Its parameters: name and kind.
    pub fn params(&self) -> &[(String, ptx::ParamKind)] {
        &self.code.params
    }

    /// The most threads of a block (`.maxntid`).
    pub fn max_threads(&self) -> u32 {
        self.code.max_threads
    }

    /// Bytes of static shared memory.
    pub fn shared_bytes(&self) -> u32 {
        self.code.shared_bytes
    }

    /// The module it is in.
    pub fn module(&self) -> &Module {
        &self.module
    }
}

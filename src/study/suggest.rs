//! Finding a kernel by name, and what was probably meant where there is none.

use strsim::osa_distance;

use crate::kernels::{self, Kernel};
use crate::{Error, Result};

/// The names of `all` most like `name`, at most five: those it is a part of, then by edit distance of their
/// beginnings, as long as half of it at least is right.
pub fn matches<'a>(name: &str, all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let name = name.to_lowercase();
    let score = |other: &'a str| {
        let inside = !name.is_empty() && other.to_lowercase().contains(&name);
        let lower = other.to_lowercase();
        // Of a family, such as `conv_forward`, the beginning counts.
        let ends = lower.match_indices('_').map(|(at, _)| at).chain([lower.len()]);
        let d = ends.map(|end| osa_distance(&name, &lower[..end])).min().unwrap_or(0);
        (inside || d <= name.len().max(2) / 2).then_some((!inside, d, osa_distance(&name, &lower), other))
    };
    let mut found: Vec<_> = all.filter_map(score).collect();
    found.sort();
    found.into_iter().take(5).map(|(.., other)| other).collect()
}

/// The kernel of that name.
///
/// # Errors
/// When there is none; the hint lists those with a similar name.
pub fn find(name: &str) -> Result<&'static Kernel> {
    kernels::find(name).map_err(|error| {
        let near = matches(name, kernels::all().iter().map(|k| k.name));
        let hint = match near.len() {
            0 => "`ugatit kernels` lists them".to_owned(),
            _ => format!("did you mean {}?", near.join(", ")),
        };
        Error::new(error.message()).hint(hint)
    })
}

/// The kernels that a name stands for: that of the name, or all whose names begin with it and an
/// underscore, so that `conv_forward` means all its variants.
///
/// # Errors
/// As [`find`].
pub fn select(name: &str) -> Result<Vec<&'static Kernel>> {
    match find(name) {
        Ok(kernel) => Ok(vec![kernel]),
        Err(error) => {
            let prefix = format!("{name}_");
            let family: Vec<_> = kernels::all().iter().filter(|k| k.name.starts_with(&prefix)).collect();
            if family.is_empty() { Err(error) } else { Ok(family) }
        }
    }
}

/// All kernels that the names stand for, once each; every kernel for no names.
///
/// # Errors
/// As [`find`].
pub fn select_all(names: &[String]) -> Result<Vec<&'static Kernel>> {
    if names.is_empty() {
        return Ok(kernels::all().iter().collect());
    }
    let mut out: Vec<&'static Kernel> = Vec::new();
    for name in names {
        for kernel in select(name)? {
            if !out.iter().any(|k| k.name == kernel.name) {
                out.push(kernel);
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_listed() {
        let all = ["adam_f32", "adalin_forward_f32", "adalin_backward_f32", "pad_forward_x4_f32"];
        assert_eq!(matches("adma_f32", all.into_iter()), ["adam_f32"]);
        assert_eq!(matches("adalin_foward_f32", all.into_iter())[0], "adalin_forward_f32");
        assert_eq!(matches("pad", all.into_iter()), ["pad_forward_x4_f32"]);
        assert_eq!(matches("adalin_fwd", all.into_iter())[0], "adalin_forward_f32");
        assert!(matches("zzzzzzzz", all.into_iter()).is_empty());
    }

    #[test]
    fn an_unknown_kernel_is_an_error_with_a_hint() {
        let error = find("adma_f32").unwrap_err();
        assert_eq!(error.message(), "no kernel is named adma_f32");
        assert!(error.hint_text().unwrap().starts_with("did you mean adam_f32"), "{error}");
        assert_eq!(select("adam_f32").unwrap().len(), 1);
        assert!(select("conv_forward").unwrap().len() > 1);
    }
}

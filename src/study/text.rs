//! Sentences out of comments.

/// The first sentence of a kernel's comment.
pub fn first_sentence(doc: &str) -> String {
    let flat = doc.split_whitespace().collect::<Vec<_>>().join(" ");
    let ends = |at: usize| {
        let (before, after) = (&flat[..at], &flat[at + 1..]);
        let abbreviated = ["e.g", "i.e", "eq", "approx"].iter().any(|a| before.ends_with(a));
        (after.is_empty() || after.starts_with(' ')) && !abbreviated
    };
    let end = flat.match_indices('.').map(|(at, _)| at).find(|&at| ends(at)).unwrap_or(flat.len());
    flat[..end].trim_end_matches(':').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences() {
        assert_eq!(
            first_sentence("Joins the chunks: stats [images, C, 2] = mean. More.\nAnd"),
            "Joins the chunks: stats [images, C, 2] = mean"
        );
        assert_eq!(first_sentence("x * 0.5 of\nit"), "x * 0.5 of it");
    }
}

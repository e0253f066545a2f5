//! Instructions that are taken over together: what the decoder dispatches on, and what INSTRUCTIONS.md lists.

/// Instructions that one function takes over.
pub(crate) struct Family<F: 'static> {
    pub title: &'static str,
    /// Their opcodes up to the first dot.
    pub names: &'static [&'static str],
    /// Opcodes with braces as a shell has them: `add{,.sat}.s32` is `add.s32` and `add.sat.s32`. Operands follow after
    /// a blank where the opcode alone does not tell them; `d` stands for registers of the form's last type.
    pub forms: &'static [&'static str],
    pub remarks: &'static str,
    /// What takes an instruction over.
    pub take: F,
}

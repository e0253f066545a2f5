//! The few letters that sample grids are labelled with, five by seven dots each.

use crate::data::Rgb8;

/// Dots to the next letter.
pub(super) const ADVANCE: usize = 6;
/// Dots to the next line.
pub(super) const LINE: usize = 10;

/// The rows of a letter from top to bottom, the highest of five bits on the left.
fn rows(letter: char) -> [u8; 7] {
    match letter {
        'A' => [0b01110, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001],
        'B' => [0b11110, 0b10001, 0b10001, 0b11110, 0b10001, 0b10001, 0b11110],
        '2' => [0b01110, 0b10001, 0b00001, 0b00110, 0b01000, 0b10000, 0b11111],
        'a' => [0b00000, 0b00000, 0b01110, 0b00001, 0b01111, 0b10001, 0b01111],
        'e' => [0b00000, 0b00000, 0b01110, 0b10001, 0b11111, 0b10000, 0b01110],
        'h' => [0b10000, 0b10000, 0b10110, 0b11001, 0b10001, 0b10001, 0b10001],
        'i' => [0b00100, 0b00000, 0b01100, 0b00100, 0b00100, 0b00100, 0b01110],
        'n' => [0b00000, 0b00000, 0b10110, 0b11001, 0b10001, 0b10001, 0b10001],
        'r' => [0b00000, 0b00000, 0b10110, 0b11001, 0b10000, 0b10000, 0b10000],
        's' => [0b00000, 0b00000, 0b01111, 0b10000, 0b01110, 0b00001, 0b11110],
        't' => [0b01000, 0b01000, 0b11110, 0b01000, 0b01000, 0b01001, 0b00110],
        _ => [0; 7],
    }
}

/// Writes black letters with the top left corner at (`x`, `y`), a dot being `scale` pixels wide.
pub(super) fn write(image: &mut Rgb8, text: &str, x: usize, y: usize, scale: usize) {
    let dot = Rgb8::filled(scale, scale, [0; 3]);
    for (i, letter) in text.chars().enumerate() {
        for (row, bits) in rows(letter).into_iter().enumerate() {
            for column in (0..5).filter(|column| bits >> (4 - column) & 1 == 1) {
                image.paste(&dot, x + (i * ADVANCE + column) * scale, y + row * scale);
            }
        }
    }
}

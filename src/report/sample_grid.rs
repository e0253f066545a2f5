//! Sample grids: what the networks make of a few images, at a glance.

use super::font::Font;
use super::heatmap::heatmap;
use crate::data::{Rgb8, from_output};
use crate::{Error, Result};

/// What became of one image of the source X, in the words of A2B: X is A.
///
/// Images have shape [S, S, 3] (as NHWC, in [-1, 1]), attention maps [h, w].
#[derive(Debug, Clone, Copy)]
pub struct SampleColumn<'a> {
    /// The image itself, as the generators saw it.
    pub real: &'a [f32],
    /// A2A (the identity), A2B (the translation) and A2B2A (there and back).
    pub outputs: [&'a [f32]; 3],
    /// The attention maps of those three passes.
    pub heatmaps: [&'a [f32]; 3],
}

/// The samples of one direction.
#[derive(Debug, Clone)]
pub struct DirectionGrid<'a> {
    /// The domain the images are from, one letter: `A` in A2B.
    pub source: char,
    /// The domain they are translated to: `B` in A2B.
    pub target: char,
    /// Samples from the training images.
    pub train: Vec<SampleColumn<'a>>,
    /// Samples from the test images; may be none.
    pub test: Vec<SampleColumn<'a>>,
}

/// One column of a sample grid, seven images of `size` x `size` from top to bottom: the real image;
/// heatmap of A2A, A2A; heatmap of A2B, A2B; heatmap of A2B2A, A2B2A.
///
/// This is also what the official release writes for each test image.
///
/// # Errors
/// If something has another length than `size` and `heat` (width, height of the attention maps)
/// ask for.
pub fn column(column: &SampleColumn<'_>, size: usize, heat: (usize, usize)) -> Result<Rgb8> {
    let mut image = Rgb8::filled(size, 7 * size, WHITE);
    image.paste(&from_output(column.real, size, size)?, 0, 0);
    for (i, (output, map)) in column.outputs.iter().zip(column.heatmaps).enumerate() {
        image.paste(&heatmap(map, heat.0, heat.1, size)?, 0, (2 * i + 1) * size);
        image.paste(&from_output(output, size, size)?, 0, (2 * i + 2) * size);
    }
    Ok(image)
}

/// A sample grid of one or more directions side by side; for each a column per sample, training
/// images first, then after a gap test images.
///
/// Rows are as in [`column()`]; their names stand to the left. The official release paints the same
/// grid without names and gaps, one file a direction.
///
/// # Errors
/// As [`column()`], and if there is no sample at all.
pub fn sample_grid(directions: &[DirectionGrid<'_>], size: usize, heat: (usize, usize)) -> Result<Rgb8> {
    let font = Font::label(size);
    let gap = (size / 16).max(2);
    // The longest name has five characters.
    let label = 5 * font.advance() + 2 * gap;
    let top = font.line();
    let width_of = |direction: &DirectionGrid<'_>| {
        let columns = direction.train.len() + direction.test.len();
        let gap = if direction.train.is_empty() || direction.test.is_empty() { 0 } else { gap };
        label + columns * size + gap
    };
    if directions.iter().all(|direction| direction.train.is_empty() && direction.test.is_empty()) {
        return Err(Error::new("a sample grid needs an image"));
    }
    let gaps = 2 * gap * (directions.len() - 1);
    let width = directions.iter().map(width_of).sum::<usize>() + gaps;
    let mut grid = Rgb8::filled(width, top + 7 * size, WHITE);
    let mut x = 0;
    for direction in directions {
        for (row, name) in row_names(direction).iter().enumerate() {
            let lines = name.len() * font.line();
            let mut y = top + row * size + size.saturating_sub(lines) / 2;
            for line in name {
                font.write(&mut grid, line, x + gap, y, BLACK);
                y += font.line();
            }
        }
        let mut at = x + label;
        for (name, samples) in [("train", &direction.train), ("test", &direction.test)] {
            if name == "test" && !direction.train.is_empty() {
                at += gap;
            }
            if name.len() * font.advance() <= samples.len() * size {
                font.write(&mut grid, name, at, 0, BLACK);
            }
            for sample in samples {
                grid.paste(&column(sample, size, heat)?, at, top);
                at += size;
            }
        }
        x += width_of(direction) + 2 * gap;
    }
    Ok(grid)
}

const WHITE: [u8; 3] = [255; 3];
const BLACK: [u8; 3] = [0; 3];

/// The names of the seven rows, each in lines.
fn row_names(direction: &DirectionGrid<'_>) -> [Vec<String>; 7] {
    let (a, b) = (direction.source, direction.target);
    let passes = [format!("{a}2{a}"), format!("{a}2{b}"), format!("{a}2{b}2{a}")];
    let [identity, translation, cycle] = passes;
    let heat = |pass: &str| vec![pass.to_owned(), "heat".to_owned()];
    [
        vec![a.to_string()],
        heat(&identity),
        vec![identity],
        heat(&translation),
        vec![translation],
        heat(&cycle),
        vec![cycle],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::noise;
    use crate::data::to_input;
    use crate::report::heatmap;

    struct Sample {
        images: [Vec<f32>; 4],
        maps: [Vec<f32>; 3],
    }

    impl Sample {
        fn new(size: usize, seed: u32) -> Self {
            let image = |i| to_input(&noise(size, size, seed + i), size);
            let map = |i: u32| (0..size * size / 16).map(|k| ((k as u32 * (i + 3)) % 17) as f32).collect();
            Self { images: [0, 1, 2, 3].map(image), maps: [0, 1, 2].map(map) }
        }

        fn column(&self) -> SampleColumn<'_> {
            let [real, outputs @ ..] = &self.images;
            SampleColumn {
                real,
                outputs: outputs.each_ref().map(Vec::as_slice),
                heatmaps: self.maps.each_ref().map(Vec::as_slice),
            }
        }
    }

    /// The part of an image at (`x`, `y`).
    fn part(rgb: &Rgb8, x: usize, y: usize, size: usize) -> Rgb8 {
        let rows = (y..y + size).flat_map(|y| rgb.row(y)[x * 3..(x + size) * 3].to_vec());
        Rgb8::new(size, size, rows.collect()).unwrap()
    }

    #[test]
    fn a_column_has_its_seven_images_in_order() {
        let sample = Sample::new(16, 1);
        let column = column(&sample.column(), 16, (4, 4)).unwrap();
        assert_eq!((column.width(), column.height()), (16, 112));
        for (row, seed) in [(0, 1), (2, 2), (4, 3), (6, 4)] {
            assert_eq!(part(&column, 0, row * 16, 16), noise(16, 16, seed));
        }
        for (i, map) in sample.maps.iter().enumerate() {
            let want = heatmap(map, 4, 4, 16).unwrap();
            assert_eq!(part(&column, 0, (2 * i + 1) * 16, 16), want);
        }
    }

    #[test]
    fn a_grid_has_all_columns_and_nothing_else_in_colour() {
        let samples: Vec<_> = (0..5).map(|i| Sample::new(16, 10 * i)).collect();
        let columns: Vec<_> = samples.iter().map(Sample::column).collect();
        let directions = [
            DirectionGrid {
                source: 'A',
                target: 'B',
                train: columns[..2].to_vec(),
                test: columns[2..3].to_vec(),
            },
            DirectionGrid {
                source: 'B',
                target: 'A',
                train: columns[3..4].to_vec(),
                test: columns[4..].to_vec(),
            },
        ];
        let grid = sample_grid(&directions, 16, (4, 4)).unwrap();
        // Names are 5 x 7 + 2 x 2 wide and 16 high; gaps 2 between train and test, 4 between directions.
        assert_eq!((grid.width(), grid.height()), (39 + 50 + 4 + 39 + 34, 16 + 112));
        let places = [39, 55, 73, 132, 150];
        for (sample, x) in columns.iter().zip(places) {
            let want = column(sample, 16, (4, 4)).unwrap();
            for row in 0..7 {
                assert_eq!(part(&grid, x, 16 + row * 16, 16), part(&want, 0, row * 16, 16));
            }
        }
        for y in 0..grid.height() {
            for (x, pixel) in grid.row(y).chunks_exact(3).enumerate() {
                let covered = y >= 16 && places.iter().any(|p| (*p..p + 16).contains(&x));
                assert!(covered || pixel.iter().all(|&c| c == pixel[0]), "only names, in grey");
            }
        }
    }

    #[test]
    fn rows_are_named_by_direction() {
        let direction = DirectionGrid { source: 'B', target: 'A', train: vec![], test: vec![] };
        let names: Vec<String> = row_names(&direction).iter().map(|lines| lines.join(" ")).collect();
        assert_eq!(names.join(", "), "B, B2B heat, B2B, B2A heat, B2A, B2A2B heat, B2A2B");
    }

    #[test]
    fn wrong_shapes_and_empty_grids_are_errors() {
        let sample = Sample::new(16, 1);
        assert!(column(&sample.column(), 16, (4, 5)).is_err());
        assert!(column(&sample.column(), 17, (4, 4)).is_err());
        let direction = DirectionGrid { source: 'A', target: 'B', train: vec![], test: vec![] };
        assert!(sample_grid(&[direction], 16, (4, 4)).is_err());
        assert!(sample_grid(&[], 16, (4, 4)).is_err());
        let direction =
            DirectionGrid { source: 'A', target: 'B', train: vec![], test: vec![sample.column()] };
        assert_eq!(sample_grid(&[direction], 16, (4, 4)).unwrap().width(), 39 + 16);
    }
}

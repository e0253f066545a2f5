//! The images of a run's sample grids.

use crate::Result;
use crate::data::{Dataset, Folder, Rgb8, resize_bilinear, to_input};
use crate::report::{DirectionGrid, SampleColumn, sample_grid};
use crate::train::Trainer;

/// Images of the training and of the test folder on a sample grid, as in the reference.
const SAMPLE_GRID_COLUMNS: usize = 5;

/// The images of the sample grids: the same ones on every sample grid of a run, so that sample grids can be
/// compared, and training goes on undisturbed. (The reference uses up five training batches for each
/// sample grid, so that its sample grids show other images every time.)
pub(super) struct Samples {
    /// An image of A and one of B by column: training images, then test images.
    columns: Vec<(Rgb8, Rgb8)>,
    /// How many are training images.
    train: usize,
    /// Their side, pixels.
    size: usize,
}

impl Samples {
    pub fn choose(data: &Dataset, size: usize) -> Self {
        let pairs = |a: &Folder, b: &Folder| -> Vec<(Rgb8, Rgb8)> {
            let take = |folder: &Folder| {
                let samples = folder.samples(SAMPLE_GRID_COLUMNS).into_iter();
                samples.map(|(_, image)| resize_bilinear(&image, size, size))
            };
            take(a).zip(take(b)).collect()
        };
        let mut columns = pairs(&data.train_a, &data.train_b);
        let train = columns.len();
        columns.extend(pairs(&data.test_a, &data.test_b));
        Self { columns, train, size }
    }

    /// The sample grid of the weights as they are; none without images.
    ///
    /// # Errors
    /// When the device fails.
    pub fn grid(&self, trainer: &mut Trainer) -> Result<Option<Rgb8>> {
        if self.columns.is_empty() {
            return Ok(None);
        }
        let size = self.size;
        let inputs = |image: &Rgb8| to_input(image, size);
        let (a, b): (Vec<_>, Vec<_>) = self.columns.iter().map(|(a, b)| (inputs(a), inputs(b))).unzip();
        // One column at a time: a tenth of the memory.
        let passes = a.iter().zip(&b).map(|(a, b)| trainer.sample_grid(a, b)).collect::<Result<Vec<_>>>()?;
        let directions = [self.direction(&a, &passes, 0), self.direction(&b, &passes, 1)];
        sample_grid(&directions, size, (size / 4, size / 4)).map(Some)
    }

    /// The columns of the images `real` that the generator of direction `d` translates, from what
    /// [`Trainer::sample_grid`] gave for each.
    fn direction<'a>(
        &self,
        real: &'a [Vec<f32>],
        passes: &'a [[Vec<f32>; 4]],
        d: usize,
    ) -> DirectionGrid<'a> {
        fn part(all: &[f32], i: usize, len: usize) -> &[f32] {
            &all[i * len..(i + 1) * len]
        }
        // The passes are (A2B, B2B) by direction 0 and (B2A, A2A) by direction 1; the cycles are B2A2B, A2B2A.
        let (translation, identity, cycle) = (2 * d, 2 * (1 - d) + 1, 1 - d);
        let (image, map) = (self.size * self.size * 3, (self.size / 4) * (self.size / 4));
        let column =
            |(real, [first, first_maps, back, back_maps]): (&'a Vec<f32>, &'a [Vec<f32>; 4])| SampleColumn {
                real,
                outputs: [
                    part(first, identity, image),
                    part(first, translation, image),
                    part(back, cycle, image),
                ],
                heatmaps: [
                    part(first_maps, identity, map),
                    part(first_maps, translation, map),
                    part(back_maps, cycle, map),
                ],
            };
        let mut columns: Vec<SampleColumn<'a>> = real.iter().zip(passes).map(column).collect();
        let test = columns.split_off(self.train);
        let [source, target] = [['A', 'B'], ['B', 'A']][d];
        DirectionGrid { source, target, train: columns, test }
    }
}

//! What a person sees of a run: heatmaps, sample grids, the progress line, the table of losses.

pub(crate) mod font;
mod heatmap;
mod losses;
mod progress;
mod sample_grid;
mod write;

pub use heatmap::{JET, grey_map, heatmap, overlay, resize_grey};
pub use losses::LossTable;
pub use progress::Progress;
pub use sample_grid::{DirectionGrid, SampleColumn, column, sample_grid};
pub use write::{save_png, write_whole};

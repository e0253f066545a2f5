//! What a person sees of a run: heatmaps, sample sheets, the progress line, the table of losses.

mod heatmap;
mod letters;
mod losses;
mod progress;
mod sheet;
mod write;

pub use heatmap::{JET, grey_map, heatmap, overlay, resize_grey};
pub use losses::LossTable;
pub use progress::{Progress, duration};
pub use sheet::{Column, Half, column, sheet};
pub use write::{save_png, write_whole};

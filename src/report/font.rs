//! Text in images: Noto Sans Mono (SIL Open Font License), rasterised in the crate `noto-sans-mono-bitmap`, so that
//! no font of the system is needed.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use crate::data::Rgb8;

/// A weight and a size of the font.
#[derive(Clone, Copy)]
pub(crate) struct Font {
    weight: FontWeight,
    height: RasterHeight,
}

impl Font {
    /// Of 24 pixels, for charts.
    pub(crate) fn chart(bold: bool) -> Self {
        let weight = if bold { FontWeight::Bold } else { FontWeight::Regular };
        Self { weight, height: RasterHeight::Size24 }
    }

    /// For labels beside images of `side` pixels: 16 pixels, so that two lines fit beside the smallest images that
    /// are trained on, and 24 or 32 for larger ones.
    pub(crate) fn label(side: usize) -> Self {
        let height = match side {
            ..96 => RasterHeight::Size16,
            96..192 => RasterHeight::Size24,
            192.. => RasterHeight::Size32,
        };
        Self { weight: FontWeight::Regular, height }
    }

    /// Pixels from one character to the next.
    pub(crate) fn advance(self) -> usize {
        get_raster_width(self.weight, self.height)
    }

    /// Pixels from one line to the next.
    pub(crate) fn line(self) -> usize {
        self.height.val()
    }

    /// Whether the font has the character; others are left blank.
    #[cfg(test)]
    pub(crate) fn has(self, character: char) -> bool {
        get_raster(character, self.weight, self.height).is_some()
    }

    /// Writes text in the colour `ink` on white, with the top left corner at (`x`, `y`).
    pub(crate) fn write(self, image: &mut Rgb8, text: &str, x: usize, y: usize, ink: [u8; 3]) {
        for (i, character) in text.chars().enumerate() {
            let Some(raster) = get_raster(character, self.weight, self.height) else { continue };
            let blended = |level: &u8| {
                let level = u32::from(*level);
                ink.map(|c| 255 - (u32::from(255 - c) * level / 255) as u8)
            };
            let dots = raster.pixels().iter().flat_map(blended).collect();
            if let Ok(dots) = Rgb8::new(raster.width(), raster.height(), dots) {
                image.paste(&dots, x + i * self.advance(), y);
            }
        }
    }
}

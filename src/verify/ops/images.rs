//! Resizing and heatmaps of images, byte by byte.

use super::harness::{Case, Job, items};
use crate::Result;
use crate::data::{Rgb8, normalise, resize_bilinear};
use crate::report::{JET, grey_map, heatmap, resize_grey};
use crate::tensor::transpose;

impl Case<'_> {
    /// An image `[H, W, 3]` of bytes.
    fn image(&self, tensor: &str) -> Result<Rgb8> {
        let d = self.dims(tensor, 3)?;
        if d[2] != 3 {
            return Err(self.bad(format!("{tensor} has the shape {d:?}, which is no image")));
        }
        Rgb8::new(d[1], d[0], self.golden.bytes(&self.key(tensor))?)
    }

    pub(super) fn resize(&self) -> Result<Job> {
        let (x, y) = (self.image("x")?, self.image("y")?);
        let values = if self.golden.has(&self.key("y_normalised")) {
            Some(self.of_dims("y_normalised", &[3, y.height(), y.width()])?)
        } else {
            None
        };
        Ok(self.ready("differing", move |_| {
            let resized = resize_bilinear(&x, y.width(), y.height());
            let mut checks = vec![items("y", resized.pixels(), y.pixels())];
            if let Some(values) = values {
                let floats: Vec<f32> = resized.pixels().iter().map(|&p| normalise(p)).collect();
                let planes = transpose(&floats, 1, y.width() * y.height(), 3);
                checks.push(items("y_normalised", &planes, &values));
            }
            Ok(checks)
        }))
    }

    pub(super) fn heatmap(&self) -> Result<Job> {
        let d = self.dims("x", 3)?;
        let (h, w, size) = (d[1], d[2], self.number("size")?);
        if d[0] != 1 || size == 0 {
            return Err(self.bad(format!("x has the shape {d:?} and the size is {size}: no attention map")));
        }
        let x = self.floats("x")?;
        let bytes = |tensor: &str, dims: &[usize]| -> Result<Vec<u8>> {
            let found = self.golden.dims(&self.key(tensor))?;
            if found != dims {
                return Err(self.bad(format!("{tensor} has the shape {found:?}, not {dims:?}")));
            }
            self.golden.bytes(&self.key(tensor))
        };
        let grey = bytes("grey", &[h, w])?;
        let resized = bytes("grey_resized", &[size, size])?;
        let colours = bytes("y_rgb", &[size, size, 3])?;
        let table = bytes("jet_rgb", &[256, 3])?;
        Ok(self.ready("differing", move |_| {
            let own = grey_map(&x);
            let own_resized = resize_grey(&own, w, h, size, size)?;
            let own_colours = heatmap(&x, w, h, size)?;
            Ok(vec![
                items("grey", &own, &grey),
                items("grey_resized", &own_resized, &resized),
                items("y_rgb", own_colours.pixels(), &colours),
                items("jet_rgb", JET.as_flattened(), &table),
            ])
        }))
    }
}

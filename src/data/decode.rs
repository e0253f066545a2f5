//! From a file's bytes to an image.

use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageReader};

use super::Rgb8;
use crate::error::io_reason;
use crate::{Error, Result};

/// An image with a side below this is no training image: it is less than the smallest input
/// of the generator.
pub const MIN_SIDE: usize = 8;

/// A decoded image may take at most this many bytes, so that a broken or hostile header cannot
/// ask for all memory. 16384 x 16384 pixels of RGB fit.
const MAX_BYTES: u64 = 1 << 30;

/// How much of a file is read to look at its header; more is read if that is not enough.
const HEADER_BYTES: u64 = 64 << 10;

/// Reads and decodes an image of any size.
///
/// The format follows from the contents, not from the name: png, jpeg, webp, bmp, tiff and pnm.
/// Whatever the file holds becomes 8-bit RGB:
/// - grey and palette images, and CMYK jpeg, are converted;
/// - 16 bits are scaled to 8 and rounded;
/// - transparent images are laid on white. The official release drops alpha instead, so that
///   whatever colour hides below a transparent pixel appears; opaque images are equal in both;
/// - the orientation in Exif is applied, so that phone photos stand upright. The official release
///   ignores it;
/// - of an animation the first image is taken; a colour profile is ignored.
///
/// A jpeg that breaks off is an error, as in Pillow, though half of it could be shown.
///
/// # Errors
/// If the file cannot be read, is no such image or is broken; the error names the file.
pub fn load_image(path: &Path) -> Result<Rgb8> {
    let bytes = std::fs::read(path).map_err(|e| io_reason(&e));
    bytes
        .and_then(|bytes| decode(&bytes))
        .map_err(|reason| Error::new(format!("cannot read {}: {reason}", path.display())))
}

/// Looks at the header only: why this file cannot be a training image, if it cannot.
pub(super) fn probe(path: &Path) -> Result<(), String> {
    let mut file = std::fs::File::open(path).map_err(|e| io_reason(&e))?;
    let mut bytes = Vec::new();
    let read = (&mut file).take(HEADER_BYTES).read_to_end(&mut bytes);
    read.map_err(|e| io_reason(&e))?;
    if bytes.is_empty() {
        return Err("the file is empty".to_owned());
    }
    let (width, height) = match guarded(|| dimensions(&bytes)) {
        Ok(sides) => sides,
        // A large profile or preview can push what is looked for further back.
        Err(_) if bytes.len() as u64 == HEADER_BYTES => {
            file.read_to_end(&mut bytes).map_err(|e| io_reason(&e))?;
            guarded(|| dimensions(&bytes))?
        }
        Err(reason) => return Err(reason),
    };
    if (width.min(height) as usize) < MIN_SIDE {
        return Err(format!("only {width} x {height} pixels, at least {MIN_SIDE} x {MIN_SIDE} are needed"));
    }
    Ok(())
}

/// Decodes a whole image, see [`load_image`].
fn decode(bytes: &[u8]) -> Result<Rgb8, String> {
    if bytes.is_empty() {
        return Err("the file is empty".to_owned());
    }
    if image::guess_format(bytes).is_ok_and(|f| f == image::ImageFormat::Jpeg) && !jpeg_is_complete(bytes) {
        return Err("the jpeg data break off".to_owned());
    }
    guarded(|| {
        let mut decoder = open(bytes)?;
        // Broken Exif data are no reason to refuse an image.
        let orientation = decoder.orientation().ok();
        let mut image = DynamicImage::from_decoder(decoder).map_err(reason)?;
        if let Some(orientation) = orientation {
            image.apply_orientation(orientation);
        }
        to_rgb8(image)
    })
}

/// Width and height from the header.
fn dimensions(bytes: &[u8]) -> Result<(u32, u32), String> {
    Ok(open(bytes)?.dimensions())
}

/// The decoder for these bytes, its header read and its size checked.
fn open(bytes: &[u8]) -> Result<impl ImageDecoder, String> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| io_reason(&e))?;
    if reader.format().is_none() {
        return Err("not an image (png, jpeg, webp, bmp, tiff, pnm)".to_owned());
    }
    let decoder = reader.into_decoder().map_err(reason)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err("the image has no pixels".to_owned());
    }
    if decoder.total_bytes() > MAX_BYTES {
        return Err(format!("{width} x {height} pixels are too many"));
    }
    Ok(decoder)
}

/// Runs a decoder, and takes a panic in it for a broken file.
fn guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err("the decoder gave up on these data".to_owned()))
}

/// A decoder's message, in the tone of ours.
fn reason(error: ImageError) -> String {
    match error {
        ImageError::Unsupported(e) => lower(&e.to_string()),
        ImageError::Decoding(e) => {
            use std::error::Error as _;
            match e.source() {
                Some(source) => format!("broken image: {}", lower(&source.to_string())),
                None => format!("broken image: {}", lower(&e.to_string())),
            }
        }
        ImageError::IoError(e) => match e.kind() {
            std::io::ErrorKind::UnexpectedEof => "the file breaks off".to_owned(),
            _ => io_reason(&e),
        },
        ImageError::Limits(_) => "the image is too large".to_owned(),
        other => lower(&other.to_string()),
    }
}

/// First letter in lower case and no full stop, on one line.
fn lower(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut chars = text.trim_end_matches('.').chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => "no reason given".to_owned(),
    }
}

/// Three bytes a pixel; what is transparent shows white.
fn to_rgb8(image: DynamicImage) -> Result<Rgb8, String> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let pixels = if image.color().has_alpha() {
        let rgba = image.into_rgba8().into_raw();
        let over_white = |pixel: &[u8]| {
            let alpha = u32::from(pixel[3]);
            let mix = |value: u8| {
                let sum = u32::from(value) * alpha + 255 * (255 - alpha);
                ((sum + 127) / 255) as u8
            };
            [mix(pixel[0]), mix(pixel[1]), mix(pixel[2])]
        };
        rgba.chunks_exact(4).flat_map(over_white).collect()
    } else {
        image.into_rgb8().into_raw()
    };
    Rgb8::new(width, height, pixels).map_err(|e| e.message().to_owned())
}

/// Whether a jpeg's end marker follows its first scan.
///
/// The decoder fills what is missing with grey and says nothing, and a grey half would be trained
/// on. Inside a scan a byte 0xff is always followed by 0 or a restart number, so the end marker
/// cannot be met by chance; before the scan, a preview may carry one of its own.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        while bytes.get(at) == Some(&0xff) && bytes.get(at + 1) == Some(&0xff) {
            at += 1;
        }
        let (Some(0xff), Some(&marker)) = (bytes.get(at), bytes.get(at + 1)) else {
            return false;
        };
        match marker {
            0xd9 => return false,
            0x01 | 0xd0..=0xd8 => at += 2,
            _ => {
                let (Some(&high), Some(&low)) = (bytes.get(at + 2), bytes.get(at + 3)) else {
                    return false;
                };
                at += 2 + usize::from(u16::from_be_bytes([high, low]));
                if marker == 0xda {
                    break;
                }
            }
        }
    }
    let scan = bytes.get(at..).unwrap_or_default();
    scan.windows(2).any(|pair| pair == [0xff, 0xd9])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{noise, project, save};

    fn fixtures() -> Vec<std::path::PathBuf> {
        let mut files: Vec<_> = std::fs::read_dir(project("tests/images"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e != "md"))
            .collect();
        files.sort();
        assert!(files.len() >= 14);
        files
    }

    /// Every kind of file shows red on the left and blue on the right, unless it says otherwise.
    #[test]
    fn all_kinds_of_files_are_decoded() {
        let (red, blue) = ([200, 30, 40], [20, 60, 220]);
        for file in fixtures() {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            let (left, right) = match name.as_str() {
                "grey.jpg" => ([48; 3], [192; 3]),
                // 3 and 12 fifteenths of white.
                "grey16.png" => ([51; 3], [204; 3]),
                "one_bit.png" => ([0; 3], [0; 3]),
                // The right half is transparent.
                "palette.png" => (red, [255; 3]),
                _ => (red, blue),
            };
            let rgb = load_image(&file).unwrap();
            // Stored lying on its side; upright, red is above.
            let turned = name.starts_with("turned");
            let sides = if turned { (12, 16) } else { (16, 12) };
            assert_eq!((rgb.width(), rgb.height()), sides, "{name}");
            let (first, last) = if turned { ((5, 3), (5, 12)) } else { ((3, 5), (12, 5)) };
            for ((x, y), want) in [(first, left), (last, right)] {
                let got = &rgb.row(y)[x * 3..x * 3 + 3];
                let lossy = name.ends_with("jpg") || name.ends_with("webp");
                let tolerance = if lossy { 3 } else { 0 };
                let near = got.iter().zip(want).all(|(g, w): (&u8, u8)| g.abs_diff(w) <= tolerance);
                assert!(near, "{name}: {got:?}, not {want:?}");
            }
        }
    }

    #[test]
    fn lossless_formats_are_exact() {
        let folder = tempfile::tempdir().unwrap();
        let rgb = noise(21, 13, 5);
        for name in ["p.png", "p.bmp", "p.webp", "p.tiff", "p.ppm", "jpeg_in_name.jpg"] {
            let path = folder.path().join(name);
            if name.ends_with("jpg") {
                // The name lies: it is a png.
                std::fs::copy(folder.path().join("p.png"), &path).unwrap();
            } else {
                save(&path, &rgb);
            }
            assert_eq!(load_image(&path).unwrap(), rgb, "{name}");
        }
    }

    #[test]
    fn sixteen_bits_are_rounded_and_half_transparent_pixels_mixed() {
        let image = |colour, bytes: &[u8]| {
            let mut file = Cursor::new(vec![]);
            let format = image::ImageFormat::Png;
            image::write_buffer_with_format(&mut file, bytes, 1, 1, colour, format).unwrap();
            decode(&file.into_inner()).unwrap().pixels().to_vec()
        };
        // 255 * v / 65535 for v = 128, 129, 65279: 0.498, 0.502, 254.004.
        let wide: Vec<u8> = [128u16, 129, 65279].iter().flat_map(|v| v.to_ne_bytes()).collect();
        assert_eq!(image(image::ExtendedColorType::Rgb16, &wide), [0, 1, 254]);
        let half = [100, 0, 255, 51];
        assert_eq!(image(image::ExtendedColorType::Rgba8, &half), [224, 204, 255]);
        assert_eq!(image(image::ExtendedColorType::La8, &[77, 255]), [77; 3]);
        assert_eq!(image(image::ExtendedColorType::L8, &[77]), [77; 3]);
    }

    #[test]
    fn a_file_that_breaks_off_is_an_error_wherever_it_does() {
        for file in fixtures() {
            let bytes = std::fs::read(&file).unwrap();
            // A png is whole before its last chunk, an lzw strip of a tiff before its directory's
            // end, an animation after its first image; well before that nothing is.
            for end in 0..bytes.len() / 2 {
                assert!(decode(&bytes[..end]).is_err(), "{} up to byte {end}", file.display());
            }
            for end in bytes.len() / 2..bytes.len() {
                let whole = decode(&bytes[..end]).is_ok();
                assert!(!(whole && file.extension().unwrap() == "jpg"), "{} {end}", file.display());
            }
        }
    }

    #[test]
    fn broken_bytes_never_panic() {
        let bytes_of = |path| std::fs::read::<std::path::PathBuf>(path).unwrap();
        for (file, seed) in fixtures().into_iter().zip(1u32..) {
            let bytes = bytes_of(file);
            let noise = noise(600, 1, seed);
            for change in noise.pixels().chunks_exact(3) {
                let mut broken = bytes.clone();
                let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
                broken[at] = change[2];
                // Filling a large image takes time and shows no more.
                if guarded(|| dimensions(&broken)).is_ok_and(|(w, h)| w < 2000 && h < 2000) {
                    let _ = decode(&broken);
                }
            }
        }
    }

    #[test]
    fn reasons_are_told_with_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.png");
        let check = |bytes: &[u8], want: &str| {
            std::fs::write(&path, bytes).unwrap();
            let error = load_image(&path).unwrap_err();
            assert_eq!(error.message(), format!("cannot read {}: {want}", path.display()));
        };
        check(b"", "the file is empty");
        check(b"not an image\n", "not an image (png, jpeg, webp, bmp, tiff, pnm)");
        check(b"GIF89a...", "the image format Gif is not supported");
        let jpeg = std::fs::read(project("tests/images/rgb.jpg")).unwrap();
        check(&jpeg[..jpeg.len() - 5], "the jpeg data break off");
        let bmp = std::fs::read(project("tests/images/plain.bmp")).unwrap();
        check(&bmp[..300], "the file breaks off");
        std::fs::remove_file(&path).unwrap();
        let error = load_image(&path).unwrap_err();
        assert!(error.message().ends_with("x.png: no such file or directory"), "{error}");
    }

    #[test]
    fn a_header_that_asks_for_too_much_is_refused() {
        // A ppm may claim any size.
        let error = decode(b"P6 60000 60000 255 ").unwrap_err();
        assert_eq!(error, "60000 x 60000 pixels are too many");
    }

    #[test]
    fn headers_behind_long_comments_are_found() {
        // An APP1 segment longer than what is read at first, before the frame header.
        let jpeg = std::fs::read(project("tests/images/rgb.jpg")).unwrap();
        let mut long = jpeg[..2].to_vec();
        for _ in 0..2 {
            long.extend([0xff, 0xe1, 0xff, 0xff]);
            long.extend(vec![0; 0xfffd]);
        }
        long.extend(&jpeg[2..]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.jpg");
        std::fs::write(&path, long).unwrap();
        assert_eq!(probe(&path), Ok(()));
        assert!(load_image(&path).is_ok());
    }

    #[test]
    fn tiny_images_are_no_training_images_but_can_be_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dot.png");
        save(&path, &noise(1, 1, 1));
        let want = "only 1 x 1 pixels, at least 8 x 8 are needed";
        assert_eq!(probe(&path), Err(want.to_owned()));
        assert_eq!(load_image(&path).unwrap(), noise(1, 1, 1));
        save(&path, &noise(8, 8, 1));
        assert_eq!(probe(&path), Ok(()));
        save(&path, &noise(300, 7, 1));
        assert!(probe(&path).is_err());
    }
}

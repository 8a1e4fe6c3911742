//! Colours that stay apart for colour-blind readers and in grey.

use plotters::style::RGBColor;

/// Geodesics.
pub(super) const GEODESIC: RGBColor = RGBColor(0, 90, 160);
/// Straight lines.
pub(super) const STRAIGHT: RGBColor = RGBColor(213, 94, 0);

/// Ten classes: the palette of M. Okabe and K. Ito (2008) and two more, dark enough to be read on a light ground.
pub(super) const CLASSES: [RGBColor; 10] = [
    RGBColor(0, 0, 0),
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 130, 95),
    RGBColor(178, 80, 140),
    RGBColor(160, 105, 0),
    RGBColor(30, 120, 190),
    RGBColor(140, 30, 30),
    RGBColor(80, 60, 150),
    RGBColor(90, 90, 90),
];

/// cividis (J. Nuñez, C. Anderton, R. Renslow, 2018): even steps of lightness, the same for all eyes.
const CIVIDIS: [[u8; 3]; 10] = [
    [0x00, 0x22, 0x4e],
    [0x12, 0x35, 0x70],
    [0x3b, 0x49, 0x6c],
    [0x57, 0x5d, 0x6d],
    [0x70, 0x71, 0x73],
    [0x8a, 0x86, 0x78],
    [0xa5, 0x9c, 0x74],
    [0xc3, 0xb3, 0x69],
    [0xe1, 0xcc, 0x55],
    [0xfe, 0xe8, 0x38],
];

/// Blue, white, red, as dark at both ends (C. Brewer's RdBu, 2003): for numbers of both signs.
const DIVERGING: [[u8; 3]; 9] = [
    [0x1b, 0x50, 0x8c],
    [0x43, 0x93, 0xc3],
    [0x92, 0xc5, 0xde],
    [0xd1, 0xe5, 0xf0],
    [0xf7, 0xf7, 0xf7],
    [0xfd, 0xdb, 0xc7],
    [0xf4, 0xa5, 0x82],
    [0xd6, 0x60, 0x4d],
    [0xa5, 0x18, 0x30],
];

/// The colour of a share from 0 to 1.
pub(super) fn heat(share: f64) -> RGBColor {
    between(&CIVIDIS, share)
}

/// The colour of a share from 0 to 1, white at a half.
pub(super) fn diverging(share: f64) -> RGBColor {
    between(&DIVERGING, share)
}

fn between(colours: &[[u8; 3]], share: f64) -> RGBColor {
    let x = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) } * (colours.len() - 1) as f64;
    let low = (x as usize).min(colours.len() - 2);
    let t = x - low as f64;
    let mix = |channel: usize| {
        let (a, b) = (f64::from(colours[low][channel]), f64::from(colours[low + 1][channel]));
        (a + t * (b - a)).round() as u8
    };
    RGBColor(mix(0), mix(1), mix(2))
}

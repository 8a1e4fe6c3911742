//! Geodesics between a few latents of a trained decoder.
//!
//!     cargo run --release --example quickstart [DECODER.safetensors]

use ndarray::{Array2, Axis};
use pullback::{Decoder, Device, Options, Status};

fn main() -> pullback::Result<()> {
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/digits-d2-tanh.safetensors");
    let decoder = Decoder::open(std::env::args().nth(1).unwrap_or_else(|| digits.into()))?;
    let model = Device::best()?.load(&decoder)?;

    // Eight points on a circle in the first two latent dimensions, each joined with the one opposite.
    let around = |turn: f32| {
        Array2::from_shape_fn((8, decoder.latent_dim()), |(c, k)| {
            let angle = std::f32::consts::TAU * (c as f32 / 8.0 + turn);
            [angle.cos(), angle.sin()].get(k).map_or(0.0, |x| 1.5 * x)
        })
    };
    let (starts, ends) = (around(0.0), around(0.5));

    let volume = model.volume(starts.view())?;
    let geodesics = model.geodesics(starts.view(), ends.view(), &Options::default())?;
    println!("{} of {} converged", geodesics.count(Status::Converged), geodesics.len());
    for c in 0..geodesics.len() {
        let curve = geodesics.curves.index_axis(Axis(0), c);
        println!(
            "{:5.2} to {:5.2}: distance {:6.3} after {} passes, midway {:5.2}; volume at the start {:.3}",
            starts.row(c),
            ends.row(c),
            geodesics.length[c],
            geodesics.iterations[c],
            curve.row(curve.nrows() / 2),
            volume[c],
        );
    }
    Ok(())
}

//! Distances on a sphere: a decoder whose geodesics are known.
//!
//!     cargo run --release --example surfaces

use ndarray::array;
use pullback::{Decoder, Device, Options};

fn main() -> pullback::Result<()> {
    // (θ, φ) of Lisbon, Reykjavik and Nairobi, and of where to fly from there: colatitude and longitude.
    let starts = array![[51.28, -9.14], [25.86, -21.94], [91.29, 36.82]].mapv(|x: f64| x.to_radians());
    let ends = array![[49.29, -74.01], [54.31, 139.69], [55.01, 18.42]].mapv(|x: f64| x.to_radians());

    let earth = Decoder::sphere(6371.0); // km
    let model = Device::best()?.load_as::<f64>(&earth)?;
    let (from, to) = (model.decode(starts.view())?, model.decode(ends.view())?);

    println!("segments   solved km   great circle km   error");
    for segments in [8, 16, 32, 64] {
        let options = Options { segments, ..Options::default() };
        let found = model.geodesics(starts.view(), ends.view(), &options)?;
        for c in 0..found.len() {
            let exact = 6371.0 * (from.row(c).dot(&to.row(c)) / 6371.0_f64.powi(2)).acos();
            println!("{segments:8} {:11.2} {exact:17.2} {:7.2}", found.length[c], exact - found.length[c]);
        }
    }
    Ok(())
}

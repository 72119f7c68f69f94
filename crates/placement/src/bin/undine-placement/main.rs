//! The command `undine-placement`.
use undine_placement::{generate::{self, Storage}, htools::{self, Text, Options}};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let n = |i: usize| a.get(i).and_then(|x| x.parse::<f64>().ok()).unwrap_or(0.0);
    match a[1].as_str() {
        "gen" => { let f = generate::cluster(n(2) as usize, n(3) as usize, if a[4]=="sh" {Storage::Shared} else {Storage::Mirrored}, n(5) as u64);
            std::fs::write(format!("{}.data", a[6]), f.data).unwrap(); std::fs::write(format!("{}.dynu", a[6]), f.load).unwrap(); }
        "path" | "bal" => { let mut t = Text::parse(&std::fs::read_to_string(format!("{}.data", a[2])).unwrap()).unwrap();
            t.apply_load(&std::fs::read_to_string(format!("{}.dynu", a[2])).unwrap()).unwrap();
            let s = std::time::Instant::now();
            let b = if a[1]=="path" { htools::hbal_path(&t, if n(3)>0.0 {n(3) as usize} else {100000}, &|| false) } else {
              htools::balance(&t, &Options{ effort: if n(3)>0.0 {Some(n(3) as usize)} else {None}, price_per_gib: if n(4)>=0.0 {Some(n(4))} else {None}, max_gib: if n(5)>0.0 {Some(n(5))} else {None}, ..Default::default()}) };
            let mut g=0.0; if a.get(6).is_some() || a[1]=="path" { for m in &b.moves { g+=m.gib; println!("{} {} => {} {:.8} a={} {g}", m.instance, m.from, m.to, m.score, m.action); } }
            println!("{} in {:?}", b.summary, s.elapsed());
            std::fs::write(format!("{}.ours", a[2]), t.render(&b.places)).unwrap();
        }
        "roadef" => {
            use undine_placement::roadef::*;
            let m = Model::read(&std::fs::read_to_string(&a[2]).unwrap()).unwrap();
            let f = read_assignment(&std::fs::read_to_string(&a[3]).unwrap(), &m).unwrap();
            let s = std::time::Instant::now(); let t = n(4);
            let r = solve(&m, &f, &Effort{ seed: n(5) as u64, soft: n(6)>0.0, progress: &|| s.elapsed().as_secs_f64()/t}).unwrap();
            println!("{} {} trials {:?}", cost(&m,&f,&r.assignment).unwrap(), r.cost, r.trials);
        }
        _ => {}
    }
}

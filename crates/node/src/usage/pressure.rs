//! Pressure stall information: how long something waited for CPU, memory or disks.

/// `some avg10` of a pressure file, as a share from 0 to 1; 0 where it cannot be read.
pub fn some_avg10(text: &str) -> f64 {
    text.lines()
        .find_map(|line| line.strip_prefix("some "))
        .and_then(|line| {
            line.split(' ')
                .find_map(|field| field.strip_prefix("avg10="))
        })
        .and_then(|percent| percent.parse::<f64>().ok())
        .map_or(0.0, |percent| (percent / 100.0).clamp(0.0, 1.0))
}

/// The whole machine's pressure on `cpu`, `memory` or `io`; 0 where the kernel keeps none.
pub fn machine(what: &str) -> f64 {
    std::fs::read_to_string(format!("/proc/pressure/{what}")).map_or(0.0, |text| some_avg10(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ten_second_share_is_read() {
        let text =
            "some avg10=45.17 avg60=27.06 avg300=22.02 total=204494793\nfull avg10=1.00 total=0\n";
        assert!((some_avg10(text) - 0.4517).abs() < 1e-9);
        assert!(some_avg10("").abs() < 1e-9);
        assert!(some_avg10("some avg10=x").abs() < 1e-9);
    }
}

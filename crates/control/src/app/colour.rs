//! Colours of a brand: read, measured against what they stand on (WCAG 2), and made to fit light
//! and dark.

/// A colour, red, green and blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour([u8; 3]);

/// The least contrast of text that WCAG AA allows.
pub const AA: f64 = 4.5;
/// The darkest ground that links stand on in light pages: `--sunken` of the style sheet.
const LIGHT: Colour = Colour([0xee, 0xf2, 0xf4]);
/// The lightest ground that links stand on in dark pages: `--surface` of the style sheet.
const DARK: Colour = Colour([0x13, 0x1d, 0x22]);
/// What stands on a button: in light pages, and in dark ones.
const ON_BUTTON: (Colour, Colour) = (Colour([255; 3]), Colour([0x04, 0x18, 0x1c]));
const WHITE: Colour = Colour([255; 3]);
const BLACK: Colour = Colour([0; 3]);

impl std::str::FromStr for Colour {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "A colour is written like #0b6678.".to_owned();
        let hex = text.trim().strip_prefix('#').ok_or_else(wrong)?;
        if hex.len() != 6 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let part = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).map_err(|_| wrong());
        Ok(Self([part(0)?, part(2)?, part(4)?]))
    }
}

impl std::fmt::Display for Colour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [r, g, b] = self.0;
        write!(f, "#{r:02x}{g:02x}{b:02x}")
    }
}

impl Colour {
    fn luminance(self) -> f64 {
        let [r, g, b] = self.0.map(|part| {
            let part = f64::from(part) / 255.0;
            if part <= 0.03928 {
                part / 12.92
            } else {
                ((part + 0.055) / 1.055).powf(2.4)
            }
        });
        0.2126 * r + 0.7152 * g + 0.0722 * b
    }

    /// The contrast of two colours, 1 to 21.
    pub fn contrast(self, other: Self) -> f64 {
        let (a, b) = (self.luminance(), other.luminance());
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    /// So many hundredths of the way to another.
    fn towards(self, other: Self, hundredths: u32) -> Self {
        let mut parts = self.0;
        for (part, to) in parts.iter_mut().zip(other.0) {
            let (from, to) = (f64::from(*part), f64::from(to));
            *part = (from + (to - from) * f64::from(hundredths) / 100.0).round() as u8;
        }
        Self(parts)
    }

    /// Does text of this colour stand out on every ground of a light page, and white on it?
    pub fn fits_light(self) -> bool {
        self.contrast(LIGHT) >= AA && self.contrast(ON_BUTTON.0) >= AA
    }

    fn fits_dark(self) -> bool {
        self.contrast(DARK) >= AA && self.contrast(ON_BUTTON.1) >= AA
    }

    /// The nearest darker one that stands out on light pages.
    pub fn for_light(self) -> Self {
        (0..=100)
            .map(|n| self.towards(BLACK, n))
            .find(|it| it.fits_light())
            .unwrap_or(BLACK)
    }

    /// The nearest lighter one that stands out on dark pages.
    pub fn for_dark(self) -> Self {
        (0..=100)
            .map(|n| self.towards(WHITE, n))
            .find(|it| it.fits_dark())
            .unwrap_or(WHITE)
    }

    /// The style sheet that gives pages this colour.
    pub fn style(self) -> String {
        let (light, dark) = (self.for_light(), self.for_dark());
        let soft = (light.towards(WHITE, 88), dark.towards(DARK, 82));
        format!(
            ":root{{--accent:light-dark({light},{dark});--accent-soft:light-dark({},{})}}\n",
            soft.0, soft.1
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn colour(text: &str) -> Colour {
        text.parse().unwrap()
    }

    #[test]
    fn contrast_is_measured_as_wcag_says() {
        assert!((WHITE.contrast(BLACK) - 21.0).abs() < 1e-9);
        assert!((colour("#767676").contrast(WHITE) - 4.54).abs() < 0.01);
    }

    #[test]
    fn whatever_is_chosen_both_kinds_of_page_can_be_read() {
        for n in 0..=255_u8 {
            let any = Colour([n, n.wrapping_mul(7), n.wrapping_mul(31)]);
            assert!(any.for_light().fits_light(), "{any}");
            assert!(any.for_dark().fits_dark(), "{any}");
        }
        assert_eq!(colour("#0b6678").for_light(), colour("#0b6678"));
        assert!(!colour("#ffd500").fits_light());
    }

    #[test]
    fn only_colours_are_taken_for_colours() {
        for wrong in ["", "red", "#fff", "#12345g", "#+12345", "#0b6678;}"] {
            assert!(wrong.parse::<Colour>().is_err(), "{wrong}");
        }
    }
}

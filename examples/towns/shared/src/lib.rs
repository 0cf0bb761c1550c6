//! What a town is and which towns a request selects.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Town {
    pub name: String,
    pub country: String,
    /// Inhabitants, rounded.
    pub population: u32,
    /// Degrees north.
    pub lat: f64,
    /// Degrees east.
    pub lon: f64,
}

/// The filters of a request; an absent filter selects everything.
#[derive(Debug, Default, Deserialize)]
pub struct Selection {
    /// An English country name, in any letter case.
    pub country: Option<String>,
    /// The largest number of towns wanted.
    pub limit: Option<usize>,
}

impl Selection {
    /// The towns that match, the largest first and by name where two are equally large.
    pub fn select<'a>(&self, towns: &'a [Town]) -> Vec<&'a Town> {
        let mut selected: Vec<&Town> = towns.iter().filter(|town| self.matches(town)).collect();
        selected.sort_by(|a, b| {
            b.population
                .cmp(&a.population)
                .then_with(|| a.name.cmp(&b.name))
        });
        selected.truncate(self.limit.unwrap_or(usize::MAX));
        selected
    }

    fn matches(&self, town: &Town) -> bool {
        self.country
            .as_ref()
            .is_none_or(|country| country.to_lowercase() == town.country.to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn town(name: &str, country: &str, population: u32) -> Town {
        Town {
            name: name.into(),
            country: country.into(),
            population,
            lat: 0.0,
            lon: 0.0,
        }
    }

    fn towns() -> Vec<Town> {
        vec![
            town("Lucca", "Italy", 89_000),
            town("Pisa", "Italy", 89_000),
            town("Bergen", "Norway", 292_000),
            town("Arezzo", "Italy", 97_000),
        ]
    }

    fn names(selection: Selection) -> Vec<String> {
        selection
            .select(&towns())
            .into_iter()
            .map(|town| town.name.clone())
            .collect()
    }

    #[test]
    fn everything_is_selected_largest_first() {
        assert_eq!(
            names(Selection::default()),
            ["Bergen", "Arezzo", "Lucca", "Pisa"]
        );
    }

    #[test]
    fn equally_large_towns_are_ordered_by_name() {
        let mut reversed = towns();
        reversed.reverse();
        assert_eq!(
            Selection::default().select(&reversed),
            Selection::default().select(&towns())
        );
    }

    #[test]
    fn country_is_compared_in_any_letter_case() {
        let selection = Selection {
            country: Some("NORWAY".into()),
            limit: None,
        };
        assert_eq!(names(selection), ["Bergen"]);
    }

    #[test]
    fn unknown_country_selects_nothing() {
        let selection = Selection {
            country: Some("Atlantis".into()),
            limit: None,
        };
        assert!(names(selection).is_empty());
    }

    #[test]
    fn limit_keeps_the_largest() {
        let selection = Selection {
            country: Some("Italy".into()),
            limit: Some(1),
        };
        assert_eq!(names(selection), ["Arezzo"]);
    }
}

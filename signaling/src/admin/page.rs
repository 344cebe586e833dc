//! The page at `/`: who is in which conference. No scripts, nothing from elsewhere.

use std::fmt::Write as _;

use super::views::Conference;

/// What the page may load: its own style sheet and nothing else.
pub(super) const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `/style.css`.
pub(super) const STYLE: &str = "body{font:15px/1.4 system-ui,sans-serif;margin:2rem;max-width:70rem}\
table{border-collapse:collapse;width:100%;margin-bottom:1.5rem}\
th,td{text-align:left;padding:.25rem .75rem;border-bottom:1px solid #ccc}h2{margin-bottom:.25rem}";

/// The page.
pub(super) fn render(node: &str, conferences: &[Conference]) -> String {
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"3\">\
         <title>mixminus {node}</title><link rel=\"stylesheet\" href=\"/style.css\"></head>\n\
         <body><h1>mixminus {node}</h1>\n<p>{} conferences, {} participants. \
         <a href=\"/api/v1/status\">status</a> <a href=\"/metrics\">metrics</a></p>\n",
        conferences.len(),
        conferences
            .iter()
            .map(|conference| conference.participants.len())
            .sum::<usize>(),
        node = escape(node),
    );
    for conference in conferences {
        let locked = if conference.locked { ", locked" } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "<h2>{}</h2>\n<p>{}{locked}, since {}</p>\n<table><tr><th>participant</th><th>address</th><th>name</th>\
             <th>status</th><th>codec</th><th>joined</th></tr>\n",
            escape(&conference.conference),
            escape(&conference.state),
            escape(&conference.activated),
        );
        for participant in &conference.participants {
            let muted = if participant.muted { ", muted" } else { "" };
            let talking = if participant.talking { ", talking" } else { "" };
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}{muted}{talking}</td><td>{}</td><td>{}</td></tr>",
                escape(&participant.participant),
                escape(&participant.uri),
                escape(&participant.display_name),
                escape(&participant.status),
                escape(&participant.codec),
                escape(&participant.joined),
            );
        }
        out.push_str("</table>\n");
    }
    out.push_str("</body></html>\n");
    out
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::views::Participant;

    #[test]
    fn nothing_a_caller_says_becomes_markup() {
        let evil = || "<script>\"'&".to_owned();
        let participant = Participant {
            participant: evil(),
            uri: evil(),
            display_name: evil(),
            status: evil(),
            muted: true,
            talking: true,
            codec: evil(),
            joined: evil(),
            call_id: evil(),
        };
        let conference = Conference {
            conference: evil(),
            state: evil(),
            locked: true,
            mixer: evil(),
            activated: evil(),
            participants: vec![participant],
        };
        let page = render(&evil(), &[conference]);
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;&quot;&#39;&amp;"));
        assert!(page.contains(", muted, talking") && page.contains(", locked"));
    }
}

//! The routes against their page in the docs.

#[test]
fn the_protocols_page_has_every_route() {
    let page = include_str!("../../../../docs/agent-protocol.md");
    let table = include_str!("mod.rs").split(".route(\"").skip(1);
    let routes: Vec<_> = table.filter_map(|rest| rest.split_once("\", ")).collect();
    assert!(routes.len() > 10, "{routes:?}");
    for (path, handler) in routes {
        let method = handler.split('(').next().unwrap_or_default().to_uppercase();
        assert!(page.contains(&format!("| `{method} {path}` |")), "{method} {path}");
    }
}

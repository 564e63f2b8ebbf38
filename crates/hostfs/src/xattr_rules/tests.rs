use super::*;

fn rules(map: &str) -> XattrRules {
    XattrRules::parse(map.as_bytes()).unwrap()
}

fn host(rules: &XattrRules, name: &CStr) -> Result<String, Errno> {
    let name = rules.host_name(name)?;
    Ok(name.to_str().unwrap().to_owned())
}

fn guest<'a>(rules: &XattrRules, name: &'a str) -> Option<&'a str> {
    let name = rules.guest_name(name.as_bytes())?;
    Some(std::str::from_utf8(name).unwrap())
}

#[test]
fn map_is_short_for_what_it_is_documented_as() {
    let cases = [
        (
            ":map::user.virtiofs.:",
            ":prefix:all::user.virtiofs.::bad:all:::",
        ),
        (
            "/map/trusted./user.virtiofs./",
            "/prefix/all/trusted./user.virtiofs./ /bad/server//trusted./\n\
             /bad/client/user.virtiofs.//\t/ok/all///",
        ),
        (
            "!bad!client!user.x!! !map!!user.v.!",
            "!bad!client!user.x!!!prefix!all!!user.v.!!bad!all!!!",
        ),
    ];
    for (short, long) in cases {
        assert_eq!(rules(short), rules(long), "{short}");
    }
}

#[test]
fn a_prefix_for_everything_hides_what_has_none() {
    let all = rules(":map::user.virtiofs.:");
    assert_eq!(
        host(&all, c"security.capability"),
        Ok("user.virtiofs.security.capability".into())
    );
    assert_eq!(
        guest(&all, "user.virtiofs.trusted.overlay.opaque"),
        Some("trusted.overlay.opaque")
    );
    for hidden in ["user.mine", "security.selinux", "user.virtiofs."] {
        assert_eq!(guest(&all, hidden), None, "{hidden}");
    }
}

#[test]
fn a_prefix_for_some_leaves_the_others_alone() {
    let some = rules("/map/trusted./user.virtiofs./");
    let cases = [
        (c"trusted.a", Ok("user.virtiofs.trusted.a")),
        (c"user.mine", Ok("user.mine")),
        (c"security.selinux", Ok("security.selinux")),
        (c"user.virtiofs.trusted.a", Err(Errno::PERM)),
    ];
    for (name, want) in cases {
        assert_eq!(host(&some, name), want.map(str::to_owned), "{name:?}");
    }
    let cases = [
        ("user.virtiofs.trusted.a", Some("trusted.a")),
        ("user.mine", Some("user.mine")),
        ("trusted.a", None),
    ];
    for (name, want) in cases {
        assert_eq!(guest(&some, name), want, "{name}");
    }
}

#[test]
fn the_first_rule_that_matches_decides_and_each_side_has_its_own() {
    let mixed = rules(
        ":ok:client:user.:: :unsupported:client:trusted.:: :bad:client:security.::\
         /ok/server//user./ /unsupported/server//trusted./ :bad:all:::",
    );
    let cases = [
        (c"user.a", Ok("user.a")),
        (c"trusted.a", Err(Errno::OPNOTSUPP)),
        (c"security.a", Err(Errno::PERM)),
        (c"system.a", Err(Errno::PERM)),
    ];
    for (name, want) in cases {
        assert_eq!(host(&mixed, name), want.map(str::to_owned), "{name:?}");
    }
    assert_eq!(guest(&mixed, "user.a"), Some("user.a"));
    assert_eq!(guest(&mixed, "trusted.a"), None);
    assert_eq!(guest(&mixed, "system.a"), None);
}

#[test]
fn a_host_name_that_no_rule_matches_is_hidden() {
    let client_only = rules(":prefix:all:trusted.:user.v.::ok:client:::");
    assert_eq!(guest(&client_only, "security.a"), None);
    assert_eq!(host(&client_only, c"security.a"), Ok("security.a".into()));
}

#[test]
fn a_bad_map_is_told_by_rule_and_field() {
    let cases = [
        ("", "the map has no rule"),
        (" \n", "the map has no rule"),
        (
            ":prefix:all:a:b",
            "rule 1 ends inside its prepend: a separator is missing",
        ),
        (
            ":ok:all::: :bad",
            "rule 2 ends inside its type: a separator is missing",
        ),
        (
            ":good:all:::",
            "rule 1 has the type 'good', not prefix, ok, bad, unsupported or map",
        ),
        (
            ":ok:both:::",
            "rule 1 has the scope 'both', not client, server or all",
        ),
        (
            ":map::user.v.: :ok:all:::",
            "rule 1 is of type map, which has to be the last",
        ),
        (
            ":prefix:all:trusted.:user.v.: :bad:server:::",
            "some names are matched by no rule: end the map with one for all, as ':bad:all:::'",
        ),
        (":map::a\0:", "the map has a NUL byte"),
    ];
    for (map, want) in cases {
        let error = XattrRules::parse(map.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), want, "{map:?}");
    }
}

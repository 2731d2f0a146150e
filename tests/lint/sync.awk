# SPDX-License-Identifier: MIT
# sync.awk FILE… - both ends of every memory ordering. A comment SYNC(tag) belongs to the ordered accesses in its line, or, when
# it has a line of its own, to the first ones behind it. Every tag needs an end that releases and one that acquires, or two
# places that do both (fences in pairs). "other end NAME" must name a function; and that one has the tag in or before it.
#
# Prints a line for each fault and ends with status 1 if there are any.

function fault(text) { print text; faults++ }

# "R", "A", "RA" (both) or "".
function kind(code,    k) {
    if (code ~ /ps__(add_sc|sub_sc|swap_ar|cas_ar|fence_sc|fence_light|fence_heavy)\(/) return "RA"
    if (code ~ /memory_order_(acq_rel|seq_cst)/) return "RA"
    k = ""
    if (code ~ /ps__(store_rel|add_rel|fence_rel)\(/ || code ~ /memory_order_release/) k = "R"
    if (code ~ /ps__(load_acq|cas_acq|fence_acq)\(/ || code ~ /memory_order_acquire/) k = k "A"
    return k
}

function count_end(tag, k, place) {
    if (k == "") return
    if (k ~ /R/) released[tag]++
    if (k ~ /A/) acquired[tag]++
    if (k == "RA") both[tag]++
    places[tag] = places[tag] " " place
}

FNR == 1 { waiting = ""; function_name = ""; inside = 0; before = "" }

{
    line = $0
    # The comment part and the code part of the line; a line inside a comment has no code.
    code = line
    comment = ""
    if (inside) {
        comment = line
        code = ""
        if (match(line, /\*\//)) { inside = 0; code = substr(line, RSTART + 2); comment = substr(line, 1, RSTART - 1) }
    } else if (match(line, /\/\*/)) {
        comment = substr(line, RSTART)
        code = substr(line, 1, RSTART - 1)
        if (comment ~ /\*\//) {
            rest = comment
            sub(/^.*\*\//, "", rest)
            code = code rest
        } else {
            inside = 1
        }
    }

    # Functions: what is at the left edge and has a parameter list.
    if (code ~ /^(PS_(COLD|NOINLINE) )?[a-z].*\(/ && code !~ /^(typedef|extern|return|else|if)/ && code !~ /;[ \t]*$/) {
        function_name = code
        sub(/\(.*/, "", function_name)
        sub(/.*[ *]/, "", function_name)
        exists[function_name] = 1
        # Comments in front of a function are its own.
        for (i = split(before, tags, " "); i > 0; i--) has[function_name, tags[i]] = 1
    }
    if (code ~ /^}/) { function_name = ""; before = "" }

    rest = comment
    found = ""
    while (match(rest, /SYNC\([a-z]+\)/)) {
        tag = substr(rest, RSTART + 5, RLENGTH - 6)
        found = found " " tag
        named[tag] = named[tag] " " FILENAME ":" FNR
        if (function_name != "") has[function_name, tag] = 1
        else before = before " " tag
        rest = substr(rest, RSTART + RLENGTH)
        # "other end f" or "other ends: f": remembered until all functions are known.
        if (match(rest, /^[^;:]*[Oo]ther ends?:? [a-z_]+/)) {
            partner = substr(rest, RSTART, RLENGTH)
            sub(/.* /, "", partner)
            if (partner ~ /_/) {
                want_name[++wants] = partner
                want_tag[wants] = tag
                want_place[wants] = FILENAME ":" FNR
            }
        }
    }
    k = kind(code)
    if (found != "" && k != "") {
        n = split(found, tags, " ")
        for (i = 1; i <= n; i++) count_end(tags[i], k, FILENAME ":" FNR)
        waiting = ""
    } else if (found != "" && function_name != "") {
        waiting = waiting found
    }
    if (waiting != "" && found == "" && k != "") {
        n = split(waiting, tags, " ")
        for (i = 1; i <= n; i++) count_end(tags[i], k, FILENAME ":" FNR)
        waiting = ""
    }
    if (code ~ /^}/) {
        if (waiting != "") fault(FILENAME ":" FNR ": SYNC(" substr(waiting, 2) ") stands before no ordered access")
        waiting = ""
    }
}

END {
    for (tag in named) {
        where = places[tag] == "" ? " named in" named[tag] : " ordered accesses:" places[tag]
        if (!released[tag]) fault("SYNC(" tag "): no end releases;" where)
        if (!acquired[tag]) fault("SYNC(" tag "): no end acquires;" where)
        if (released[tag] && acquired[tag] && split(places[tag], all, " ") < 2) fault("SYNC(" tag ") has one end only:" where)
        tags_seen++
    }
    for (i = 1; i <= wants; i++) {
        if (!(want_name[i] in exists))
            fault(want_place[i] ": the other end of SYNC(" want_tag[i] "), " want_name[i] ", is no function")
        else if (!((want_name[i], want_tag[i]) in has))
            fault(want_place[i] ": " want_name[i] " has no SYNC(" want_tag[i] ")")
    }
    if (!tags_seen) fault("there is no SYNC tag at all")
    exit faults != 0
}

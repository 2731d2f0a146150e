# SPDX-License-Identifier: MIT
# functions.awk - pages of section 3 out of the public header: one for each function, psbus.3 with the whole at a glance, and
# ps_transport.3 with the table of a transport.
#
#   awk -v out=DIRECTORY -v version=… -v date=… -f roff.awk -f functions.awk include/psbus.h
#
# It relies on the one shape that comments of functions have, and ends with an error where one differs.

function die(text) {
    print "functions.awk: psbus.h, line " NR ": " text >"/dev/stderr"
    failed = 1
    exit 1
}

# print and the functions of roff.awk write to standard output; pages are collected by their names in front.
function page(name) { print "@PAGE " name }

# ------------------------------------------------------------------ one function

# The lines text[1..count] of its comment and its declaration.
function function_page(name, summary, declaration,    i, state, line, label, rest, parts, n, seen, words, w, other) {
    page(name ".3")
    roff_title(name, 3)
    print ".SH NAME"
    print name " \\- " roff(summary)
    print ".SH SYNOPSIS"
    roff_begin_code()
    print ".B #include <psbus.h>"
    print ""
    n = split(declaration, parts, "\n")
    for (i = 1; i <= n; i++) print ".B \"" roff_code(parts[i]) "\""
    roff_end_code()
    print ".SH DESCRIPTION"
    print roff(toupper(substr(summary, 1, 1)) substr(summary, 2) ".")

    state = "body"
    split("", value)
    for (i = 2; i <= count; i++) {
        line = text[i]
        if (match(line, /^(Returns|Ownership|Threads|Blocking|Signals) +/)) {
            argument_end(state)
            label = line
            sub(/ .*/, "", label)
            if (label == "Returns") {
                print ".SH RETURN VALUE"
                state = "returns"
                return_line(substr(line, 12))
            } else {
                state = "label"
                value[label] = trim(substr(line, RLENGTH + 1))
            }
        } else if (line == "") {
            argument_end(state)
            state = "body"
            paragraph = 1
        } else if (state == "returns") {
            if (indent_of(line) < 11) die("a line of Returns that is not indented: " line)
            return_line(substr(line, 12))
        } else if (state == "label") {
            value[label] = value[label] " " trim(line)
        } else if (line ~ /^  [^ ]/) {
            argument_end(state)
            state = "argument"
            line = substr(line, 3)
            rest = line
            sub(/^[^ ]+ +/, "", rest)
            column = 2 + length(line) - length(rest)
            sub(/ .*/, "", line)
            print ".TP"
            print ".I " roff_code(line)
            print roff(rest)
        } else if (state == "argument") {
            argument_line(line)
        } else {
            if (line ~ /^ /) die("a line of the text that is indented: " line)
            if (paragraph) print ".PP"
            paragraph = 0
            print roff(line)
        }
    }
    argument_end(state)

    if (!("Signals" in value)) die(name " lacks a label")
    n = split(value["Signals"], parts, /   +/)
    if (n != 3 || parts[2] !~ /^Fork: / || parts[3] !~ /^Since /) die(name ": Signals, Fork, Since are not in one line")
    value["Signals"] = parts[1]
    value["Fork"] = substr(parts[2], 7)
    since = substr(parts[3], 7)
    n = split(value["Blocking"], parts, /   +Allocates: /)
    if (n != 2) die(name ": Blocking and Allocates are not in one line")
    value["Blocking"] = parts[1]
    value["Allocates"] = parts[2]
    print ".SH ATTRIBUTES"
    n = split("Ownership Threads Blocking Allocates Signals Fork", parts, " ")
    for (i = 1; i <= n; i++) {
        if (value[parts[i]] == "") die(name " lacks " parts[i])
        print ".TP"
        print ".B " parts[i]
        print roff(value[parts[i]])
    }
    print ".SH HISTORY"
    print "Since version " since "."
    print ".SH SEE ALSO"
    for (i = 1; i <= count; i++) {
        line = text[i]
        while (match(line, /ps_[a-z_]+\(\)/)) {
            other = substr(line, RSTART, RLENGTH - 2)
            line = substr(line, RSTART + RLENGTH)
            if (other == name || other in seen) continue
            seen[other] = 1
            print ".BR " other " (3),"
        }
    }
    print ".BR psbus (3),"
    print ".BR psbus (7)"
}

# A line of an argument behind its first one: deeper than its text it is kept as it is.
function argument_line(line) {
    if (indent_of(line) > column && !kept) { print ".RS"; roff_begin_code() }
    if (indent_of(line) <= column && kept) { roff_end_code(); print ".RE"; print ".IP" }
    kept = indent_of(line) > column
    print kept ? roff_code(substr(line, column + 1)) : roff(trim(line))
}

function argument_end(state) {
    if (state == "argument" && kept) { roff_end_code(); print ".RE" }
    if (state == "argument") paragraph = 1
    kept = 0
}

# A line of Returns: a code and its cause, more of it, or a sentence about all of them.
function return_line(line,    codes) {
    if (match(line, /^PS_E[A-Z]+(, PS_E[A-Z]+)*  +/) || match(line, /^PS_E[A-Z]+ /)) {
        codes = substr(line, 1, RLENGTH)
        print ".TP"
        print ".B " trim(codes)
        print roff(substr(line, RLENGTH + 1))
        in_code = 1
    } else {
        if (in_code && line !~ /^ /) { print ".PP"; in_code = 0 }
        print roff(trim(line))
    }
}

# ------------------------------------------------------------------ the header

FNR == 1 { in_code = paragraph = kept = 0 }

# "/* ---------- open and close */", or the same as the beginning of a longer comment.
match($0, /^\/\* ----------+ /) {
    section = trim(substr($0, RLENGTH + 1))
    sub(/ *\*\/$/, "", section)
    sections[++section_count] = section
}

/^#define PS_[A-Z]+_MAX +[0-9]+ / { limits[++limit_count] = substr($0, 9) }
/^    X\(PS_E[A-Z]+,/ {
    split($0, part, /[(,"]/)
    error_name[++error_count] = part[2]
    error_value[error_count] = trim(part[3])
    match($0, /"[^"]*"/)
    error_text[error_count] = substr($0, RSTART + 1, RLENGTH - 2)
}
section == "types" && !/^\/\* -----/ { types[++type_count] = $0 }
section == "a transport of your own" && !/^\/\* -----/ { transport[++transport_count] = $0 }

/^\/\*$/ { count = 0; reading = 1; next }
reading && /^ \*\/$/ { reading = 0; whole = 1; next }
reading {
    line = $0
    sub(/^ \*( |$)/, "", line)
    text[++count] = line
    next
}
/^PS_API / {
    if (!whole) die("a function without a comment")
    declaration = substr($0, 8)
    while (declaration !~ /;$/ && (getline line) > 0) declaration = declaration "\n        " trim(line)
    name = declaration
    sub(/\(.*/, "", name)
    sub(/.*[ *]/, "", name)
    if (index(text[1], name " - ") != 1) die("the comment of " name " begins with: " text[1])
    summary = substr(text[1], length(name) + 4)
    # A summary may go on in the lines behind it.
    for (i = 2; i <= count && text[i] != ""; i++) { summary = summary " " trim(text[i]); text[i] = "" }
    sub(/\.$/, "", summary)
    in_code = paragraph = kept = 0
    function_page(name, summary, declaration)
    group[++function_count] = section
    functions[function_count] = name
    summaries[function_count] = summary
}
{ whole = 0 }

END {
    if (failed) exit 1
    if (!function_count || !error_count || !type_count || !limit_count) die("the header has another form than this expects")
    overview_page()
    transport_page()
    if (failed) exit 1
}

# ------------------------------------------------------------------ the other two pages

function overview_page(    i, last) {
    page("psbus.3")
    roff_title("psbus", 3)
    print ".SH NAME"
    print "psbus \\- publish/subscribe inside a process and between the processes of a host"
    print ".SH SYNOPSIS"
    roff_begin_code()
    print ".B #include <psbus.h>"
    print ""
    print ".B cc file.c $(pkg-config --cflags --libs psbus)"
    roff_end_code()
    print ".SH DESCRIPTION"
    print "What a bus is, what URLs, topics and filters look like, and what is promised stands in"
    print ".BR psbus (7)."
    print "The library makes no thread, installs no signal handler, prints nothing, never aborts and leaves"
    print ".I errno"
    print "as it was."
    for (i = 1; i <= function_count; i++) {
        if (group[i] != last) print ".SS " roff(toupper(substr(group[i], 1, 1)) substr(group[i], 2))
        last = group[i]
        print ".TP"
        print ".BR " functions[i] " (3)"
        print roff(summaries[i])
    }
    print ".SH RESULTS"
    print "Functions that return"
    print ".I int"
    print "answer 0 or a count on success and one of these on failure. Values never change."
    print ".BR ps_strerror (3)"
    print "has the text,"
    print ".BR ps_errmsg (3)"
    print "the detail."
    for (i = 1; i <= error_count; i++) {
        print ".TP"
        print ".BR " error_name[i] " (" roff_code(error_value[i]) ")"
        print roff(error_text[i])
    }
    print ".SH LIMITS"
    roff_begin_code()
    for (i = 1; i <= limit_count; i++) print roff_code(limits[i])
    roff_end_code()
    print ".SH TYPES"
    roff_begin_code()
    for (i = 1; i <= type_count; i++) print roff_code(types[i])
    roff_end_code()
    print ".SH SEE ALSO"
    print ".BR psbus (1),"
    print ".BR ps_transport (3),"
    print ".BR psbus (7)"
}

function transport_page(    i, last) {
    page("ps_transport.3")
    roff_title("ps_transport", 3)
    print ".SH NAME"
    print "ps_transport \\- a backend of your own"
    print ".SH SYNOPSIS"
    roff_begin_code()
    print ".B #include <psbus.h>"
    roff_end_code()
    print ".SH DESCRIPTION"
    # Up to the comment of ps_transport_register, which has a page.
    for (last = transport_count; last > 0 && transport[last] !~ /^} ps_transport;/; last--) { }
    for (i = 1; i <= last; i++) {
        if (transport[i] ~ /^ \*\/$/ && !code) { roff_end_code(); print ".SH THE TABLE"; roff_begin_code(); code = 1; continue }
        if (code) { print roff_code(transport[i]); continue }
        line = transport[i]
        sub(/^ \*( |$)/, "", line)
        if (line ~ /^The core calls/) roff_begin_code()
        if (line == "" && i > 2) print ".PP"
        else if (line != "") print line ~ /^( |The core calls)/ ? roff_code(line) : roff(line)
    }
    roff_end_code()
    print ".SH SEE ALSO"
    print ".BR ps_transport_register (3),"
    print ".BR psbus (3),"
    print ".BR psbus (7)"
}

# SPDX-License-Identifier: MIT
# command.awk - pages of section 1 out of what the tool says of itself, so that --help and manual cannot differ.
#
#   psbus pub --help | awk -v command=pub -v version=… -v date=… -f roff.awk -f command.awk
#   psbus --help     | awk -v command=    -v version=… -v date=… -f roff.awk -f command.awk
#
# --help of a command: "usage: psbus COMMAND ARGUMENTS", an empty line, the summary, an empty line; then options, two blanks
# in, and paragraphs, not indented. --help of the tool: "psbus - SUMMARY", the commands, two blanks in, and paragraphs.

function die(text) {
    print "command.awk: psbus " command " --help: " text >"/dev/stderr"
    failed = 1
    exit 1
}

function capital(text) { return toupper(substr(text, 1, 1)) substr(text, 2) }

# "--count N          stop …": the option with its value, and what it does. A long one has a single blank between them.
function option_line(line,    head) {
    line = trim(line)
    if (!match(line, /^(-[a-zA-Z], )?--[a-z][a-z-]*( [A-Z][A-Z|]*)?( |$)/)) die("no option: " line)
    head = trim(substr(line, 1, RLENGTH))
    option_count++
    option_head[option_count] = head
    option_text[option_count] = trim(substr(line, RLENGTH + 1))
}

# "psbus pub    [OPTIONS] URL TOPIC [FILE]    each line …"
function command_line(line,    name) {
    name = line
    sub(/^ +psbus +/, "", name)
    if (name ~ /^-/ || name ~ /^COMMAND/) return
    sub(/ .*/, "", name)
    match(line, /   *[^ ].*$/)
    sub(/^.*[^ ]   */, "", line)
    command_count++
    command_name[command_count] = name
    command_text[command_count] = line
}

function paragraph_line(line) {
    if (!open_paragraph) paragraph_count++
    open_paragraph = 1
    paragraphs[paragraph_count] = paragraphs[paragraph_count] (paragraphs[paragraph_count] == "" ? "" : "\n") roff(line)
}

function print_paragraphs(    i, status) {
    for (i = 1; i <= paragraph_count; i++) {
        if (paragraphs[i] ~ /^Exit status: /) continue
        print ".PP"
        print without_status(paragraphs[i])
    }
}

# A line "Exit status: …" that stands in a paragraph becomes a section.
function without_status(paragraph,    at) {
    at = index(paragraph, "\nExit status: ")
    if (!at) return paragraph
    exit_status = substr(paragraph, at + 14)
    return substr(paragraph, 1, at - 1)
}

NR == 1 && command == "" {
    if (!sub(/^psbus - /, "")) die("the first line is no summary")
    summary = $0
    next
}
NR == 1 {
    if (!sub("^usage: psbus " command " ?", "")) die("the first line is no usage")
    usage = $0
    next
}
/^$/ { open_paragraph = 0; next }
command != "" && summary == "" { summary = $0; next }
command == "" && /^  psbus / { command_line($0); next }
/^ +-/ { option_line($0); open_paragraph = 0; next }
/^ / && option_count && !open_paragraph { option_text[option_count] = option_text[option_count] "\n" trim($0); next }
/^ / { die("an indented line behind no option: " $0) }
{ paragraph_line($0) }

END {
    if (failed) exit 1
    if (summary == "" || (command == "" && !command_count)) die("it has another form than this expects")
    sub(/\.$/, "", summary)
    name = command == "" ? "psbus" : "psbus-" command
    roff_title(name, 1)
    print ".SH NAME"
    print roff_code(name) " \\- " roff(summary)
    print ".SH SYNOPSIS"
    if (command == "") {
        for (i = 1; i <= command_count; i++) {
            print ".B psbus " command_name[i]
            print "\\&..."
            print ".br"
        }
        print ".B psbus"
        print ".RI [ COMMAND ]"
        print ".B \\-\\-help"
        print ".br"
        print ".B psbus \\-\\-version"
    } else {
        print ".B psbus " command
        if (usage != "") print roff(usage)
    }
    print ".SH DESCRIPTION"
    print roff(capital(summary)) "."
    print_paragraphs()
    for (i = 1; i <= command_count; i++) {
        if (i == 1) print ".SH COMMANDS"
        print ".TP"
        print ".BR psbus\\-" command_name[i] " (1)"
        print roff(command_text[i])
    }
    for (i = 1; i <= option_count; i++) {
        if (i == 1) print ".SH OPTIONS"
        print ".TP"
        print ".B " roff_code(option_head[i])
        print option_text[i] == "" ? "see above" : roff(option_text[i])
    }
    print ".SH EXIT STATUS"
    for (i = 1; i <= paragraph_count; i++)
        if (paragraphs[i] ~ /^Exit status: /) exit_status = substr(paragraphs[i], 14)
    if (exit_status != "") print exit_status
    else { print "As for all commands, see"; print ".BR psbus (1)." }
    print ".SH SEE ALSO"
    if (command != "") print ".BR psbus (1),"
    for (i = 1; i <= command_count; i++) print ".BR psbus\\-" command_name[i] " (1),"
    print ".BR psbus (3),"
    print ".BR psbus (7)"
}

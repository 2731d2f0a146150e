# SPDX-License-Identifier: MIT
# roff.awk - what the makers of pages share: text and code as roff, the parts that every page has.

# Plain text of the header or of --help. Function names and result codes are set in bold.
function roff(text) {
    text = roff_escape(text)
    gsub(/--/, "\\-\\-", text)
    gsub(/ps_[a-z_]+\(\)/, "\\fB&\\fP", text)
    gsub(/PS_[A-Z][A-Z_]*/, "\\fB&\\fP", text)
    return text
}

# Text that is copied: a dash is the ASCII one.
function roff_code(text) {
    text = roff_escape(text)
    gsub(/-/, "\\-", text)
    return text
}

function roff_escape(text) {
    gsub(/\\/, "\\e", text)
    gsub(/…/, "...", text)
    # A dot or a quote at the beginning of a line is a request to roff.
    if (text ~ /^[.']/) text = "\\&" text
    return text
}

function roff_title(name, section,    upper) {
    print ".\\\" SPDX-License-Identifier: MIT"
    print ".\\\" Made from the sources of libpsbus; do not edit."
    upper = toupper(name)
    gsub(/-/, "\\-", upper)
    printf ".TH %s %d \"%s\" \"libpsbus %s\" \"libpsbus manual\"\n", upper, section, date, version
}

# Lines that stay as they are.
function roff_begin_code() { print ".nf" }
function roff_end_code() { print ".fi" }

function indent_of(line) { match(line, /^ */); return RLENGTH }
function trim(text) { sub(/^ +/, "", text); sub(/ +$/, "", text); return text }

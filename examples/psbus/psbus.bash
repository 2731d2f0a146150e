# SPDX-License-Identifier: MIT
# psbus.bash - bash completion for psbus: commands, options, this user's buses, files.
# Source it, or install it as share/bash-completion/completions/psbus.

_psbus() {
    local line=${COMP_LINE:0:COMP_POINT} cur command= options= count=0 skip=0 i word file
    local -a words

    # Bash breaks words at ':', and URLs have one: so by blanks.
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=('')
    cur=${words[${#words[@]} - 1]}
    COMPREPLY=()

    # The command, and how many arguments stand between it and the word that is being typed.
    for ((i = 1; i < ${#words[@]} - 1; i++)); do
        word=${words[i]}
        if ((skip)); then
            skip=0
        elif [[ -z $command ]]; then
            command=$word
        elif [[ $word == --count || $word == --interval || $word == --rate || $word == --rows || $word == --seconds ||
                $word == --timeout ]]; then
            skip=1
        elif [[ $word != -* ]]; then
            ((count++))
        fi
    done
    ((skip)) && return

    case $command in
    '') mapfile -t COMPREPLY < <(compgen -W 'pub sub ls top doctor why bench help --help --version' -- "$cur"); return ;;
    help) ((count == 0)) && mapfile -t COMPREPLY < <(compgen -W 'pub sub ls top doctor why bench' -- "$cur"); return ;;
    pub) options='--whole --count --rate --wait --timeout --keep-going --stats --help' ;;
    sub) options='--raw --json --whole --count --timeout --stats --help' ;;
    ls) options='--help' ;;
    top) options='--interval --count --rows --help' ;;
    doctor) options='--repair --help' ;;
    why) options='--help' ;;
    bench) options='--seconds --help' ;;
    *) return ;;
    esac

    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
    elif ((count == 0)); then
        # Beside each bus lie sockets: -f leaves them out.
        for file in "/dev/shm/psbus-$EUID/"*; do
            [[ -f $file && shm://${file##*/} == "$cur"* ]] && COMPREPLY+=("shm://${file##*/}")
        done
        # What stands before the last ':' is on the line already.
        if [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]]; then
            word=${cur%"${cur##*:}"}
            COMPREPLY=("${COMPREPLY[@]#"$word"}")
        fi
    elif [[ $command == pub ]] && ((count == 2)); then
        # Names of files: blanks in them are quoted by who inserts them.
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    fi
}
complete -F _psbus psbus

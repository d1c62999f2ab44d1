# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2034,SC2207
#
# bash completion for pastectl: what its usage lines say.

_pastectl() {
	local cur prev words cword usage
	_init_completion || return
	usage=$("$1" --help 2> /dev/null | sed -n 's/^\(usage:\)\{0,1\} *pastectl //p')
	[ "$cword" = 1 ] || usage=$(sed -n "s/^${words[1]} //p" <<< "$usage")
	if [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "$(grep -oE -- '-[-a-z]+' <<< "$usage")" -- "$cur"))
		return
	fi
	[[ $cword = 1 || $usage != *NIC* ]] || _available_interfaces
	COMPREPLY+=($(compgen -W "$(grep -oE '^[a-z]+' <<< "$usage")" -- "$cur"))
}
complete -F _pastectl pastectl

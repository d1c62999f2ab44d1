# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2034,SC2207
#
# bash completion for phttpd: the options that -h shows, and the arguments that are not numbers.

_phttpd() {
	local cur prev words cword
	_init_completion || return
	case $prev in
	-i) _available_interfaces ;;
	-d) _filedir -d ;;
	*) COMPREPLY=($(compgen -W "$(_parse_help "$1" -h)" -- "$cur")) ;;
	esac
}
complete -F _phttpd phttpd

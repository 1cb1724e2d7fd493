# TAB completion of `python -m jobs.VERB ...`; @NAMES@ in capitals are filled in by jobs/shell/complete.py.
_serl_words() { local IFS=$' \t\n'; COMPREPLY=($(compgen -W "$1" -- "$cur")); }
_serl_names() { # of the folders in a folder of the data root
  local data=${SERL_DATA:-data} i names=
  for ((i = 1; i < COMP_CWORD; i++)); do
    [ "${COMP_WORDS[i]}" = --data ] && data=${COMP_WORDS[i + 1]}
  done
  data=${data/#\~/$HOME}
  [ -d "$data/$1" ] && names=$(ls -1 "$data/$1" 2> /dev/null)
  _serl_words "$names"
}
_serl_paths() { # files that fit the pattern, and folders to look in
  local IFS=$'\n' slash=
  if type compopt > /dev/null 2>&1; then compopt -o filenames; else slash=/; fi
  COMPREPLY=($(compgen -f -X "!$1" -- "$cur") $(compgen -S "$slash" -d -- "$cur"))
}
_serl_kind() {
  case $1 in
    run) _serl_names runs ;;
    sweep) _serl_names sweeps ;;
    sweepfile) _serl_paths '*.y*ml'; COMPREPLY+=($(compgen -W "status cancel report" -- "$cur")) ;;
    file) _serl_paths '*.y*ml' ;;
    stage) _serl_words "@STAGES@" ;;
    *) COMPREPLY=() ;;
  esac
}
_serl_argument() { # the positional argument at the cursor, of the kinds in $kinds
  local i seen=0 kind
  for ((i = first; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      -*) case " $valued " in *" ${COMP_WORDS[i]} "*) i=$((i + 1)) ;; esac ;;
      *) seen=$((seen + 1)) ;;
    esac
  done
  set -- $kinds
  while [ $# -gt 1 ] && [ $seen -gt 0 ]; do
    case $1 in *\*) break ;; esac
    shift; seen=$((seen - 1))
  done
  kind=${1%\*}
  [ $seen -gt 0 ] && [ "$kind" = "${1-}" ] && return
  _serl_kind "$kind"
}
_serl() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
  local module= first=0 i options= valued= kinds=
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    if [ "${COMP_WORDS[i]}" = -m ]; then module=${COMP_WORDS[i + 1]}; first=$((i + 2)); break; fi
  done
  if [ "$prev" = -m ]; then _serl_words "@MODULES@"; return; fi
  case $module in
@VERBS@
    *) return ;;
  esac
  case $prev in
    --cluster) _serl_paths '*.y*ml'; COMPREPLY+=($(compgen -W "@CLUSTERS@" -- "$cur")); return ;;
    --data) _serl_paths '*/'; return ;;
  esac
  case " $valued " in *" $prev "*) return ;; esac
  case $cur in
    -*) _serl_words "$options"; return ;;
  esac
  _serl_argument
}

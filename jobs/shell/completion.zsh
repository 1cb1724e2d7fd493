_serl_spaced() { # with a space after what is whole, since zsh is told once and for all to add none
  local i; _serl
  for ((i = 0; i < ${#COMPREPLY[@]}; i++)); do
    case ${COMPREPLY[i]} in *[=/.]) ;; *) COMPREPLY[i]="${COMPREPLY[i]} " ;; esac
  done
}
whence compdef > /dev/null || { autoload -Uz compinit && compinit; }
autoload -U +X bashcompinit && bashcompinit
complete -o nospace -o default -F _serl_spaced python python3 slurm/python

package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is shown below the flags.
func (completionCommand) Help() string {
	return `Examples:
  source <(tributary completion bash)
  tributary completion zsh > "${fpath[1]}/_tributary"
  tributary completion fish > ~/.config/fish/completions/tributary.fish`
}

// Run prints a completion script: commands and flags as they are in this version.
func (c *completionCommand) Run(in *Invocation, app *kong.Kong) error {
	nodes := nodesOf(app.Model.Node, nil)
	switch c.Shell {
	case "bash":
		return bash(in.Stdout, nodes)
	case "zsh":
		return zsh(in.Stdout, nodes)
	default:
		return fish(in.Stdout, nodes)
	}
}

// node is a command with what may follow it.
type node struct {
	path  string // of commands, joined by spaces; empty for the program
	words []word
}

type word struct {
	text, help string
	flag       bool
}

func nodesOf(n *kong.Node, inherited []*kong.Flag) []node {
	this := node{path: strings.TrimPrefix(strings.TrimPrefix(n.FullPath(), "tributary"), " ")}
	for _, child := range n.Children {
		if !child.Hidden {
			this.words = append(this.words, word{text: child.Name, help: child.Help})
		}
	}
	flags := append(append([]*kong.Flag(nil), inherited...), n.Flags...)
	for _, flag := range flags {
		if !flag.Hidden {
			this.words = append(this.words, word{text: "--" + flag.Name, help: flag.Help, flag: true})
		}
	}
	nodes := []node{this}
	for _, child := range n.Children {
		if !child.Hidden {
			nodes = append(nodes, nodesOf(child, flags)...)
		}
	}
	return nodes
}

func (n node) texts() string {
	texts := make([]string, len(n.words))
	for i, w := range n.words {
		texts[i] = w.text
	}
	return strings.Join(texts, " ")
}

func bash(out io.Writer, nodes []node) error {
	var b strings.Builder
	b.WriteString(`# bash completion of tributary
_tributary() {
  local current="${COMP_WORDS[COMP_CWORD]}" path="" word words=""
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$path $word" in
`)
	for _, n := range nodes {
		if n.path != "" {
			fmt.Fprintf(&b, "      %q) path=%q ;;\n", parentOf(n.path)+" "+lastOf(n.path), n.path)
		}
	}
	b.WriteString("    esac\n  done\n  case \"$path\" in\n")
	for _, n := range nodes {
		fmt.Fprintf(&b, "    %q) words=%q ;;\n", n.path, n.texts())
	}
	b.WriteString(`  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [[ ${#COMPREPLY[@]} -gt 0 ]] || COMPREPLY=($(compgen -f -- "$current"))
}
complete -o filenames -F _tributary tributary
`)
	_, err := io.WriteString(out, b.String())
	return err
}

func zsh(out io.Writer, nodes []node) error {
	var b strings.Builder
	b.WriteString(`#compdef tributary
_tributary() {
  local at="" word
  local -a words_here
  for word in "${(@)words[2,CURRENT-1]}"; do
    case "$at $word" in
`)
	for _, n := range nodes {
		if n.path != "" {
			fmt.Fprintf(&b, "      %q) at=%q ;;\n", parentOf(n.path)+" "+lastOf(n.path), n.path)
		}
	}
	b.WriteString("    esac\n  done\n  case \"$at\" in\n")
	for _, n := range nodes {
		fmt.Fprintf(&b, "    %q) words_here=(", n.path)
		for _, w := range n.words {
			b.WriteString(" " + quote(strings.ReplaceAll(w.text, ":", `\:`)+":"+w.help))
		}
		b.WriteString(" ) ;;\n")
	}
	b.WriteString(`  esac
  _describe 'tributary' words_here
  _files
}
compdef _tributary tributary
`)
	_, err := io.WriteString(out, b.String())
	return err
}

func fish(out io.Writer, nodes []node) error {
	var b strings.Builder
	b.WriteString(`# fish completion of tributary
function __tributary_path
  set -l path ""
  for word in (commandline -opc)[2..-1]
    switch "$path $word"
`)
	for _, n := range nodes {
		if n.path != "" {
			fmt.Fprintf(&b, "      case %s\n        set path %s\n", quote(parentOf(n.path)+" "+lastOf(n.path)), quote(n.path))
		}
	}
	b.WriteString(`    end
  end
  test "$path" = "$argv[1]"
end
`)
	for _, n := range nodes {
		for _, w := range n.words {
			condition := quote("__tributary_path " + quote(n.path))
			if w.flag {
				fmt.Fprintf(&b, "complete -c tributary -n %s -l %s -d %s\n", condition, strings.TrimPrefix(w.text, "--"), quote(w.help))
			} else {
				fmt.Fprintf(&b, "complete -c tributary -n %s -f -a %s -d %s\n", condition, w.text, quote(w.help))
			}
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func parentOf(path string) string {
	if i := strings.LastIndexByte(path, ' '); i >= 0 {
		return path[:i]
	}
	return ""
}

func lastOf(path string) string { return path[strings.LastIndexByte(path, ' ')+1:] }

// quote makes one word of a shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

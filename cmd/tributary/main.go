// Command tributary is the operator's command; see tributary --help.
package main

import "github.com/tributary-dev/tributary/internal/app"

func main() { app.Main(app.Tributary) }

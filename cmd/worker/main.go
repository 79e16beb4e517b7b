// Command worker carries out what observers want of events; see worker --help.
package main

import "github.com/tributary-dev/tributary/internal/app"

func main() { app.Main(app.Worker) }

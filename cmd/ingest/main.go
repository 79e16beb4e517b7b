// Command ingest reads PostgreSQL and INBOX into EVENTS; see ingest --help.
package main

import "github.com/tributary-dev/tributary/internal/app"

func main() { app.Main(app.Ingest) }

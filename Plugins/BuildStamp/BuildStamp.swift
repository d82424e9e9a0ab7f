import Foundation
import PackagePlugin

/// Writes the commit that is built, and its date, into a source file that `--version` reads. Without git, or outside a checkout, both are empty.
@main
struct BuildStamp: BuildToolPlugin {
    func createBuildCommands(context: PluginContext, target: any Target) -> [Command] {
        let folder = context.pluginWorkDirectoryURL
        // The file keeps its date while its contents stay, so that nothing is compiled again.
        let script = """
            cd "$1" || exit 0
            commit=$(git describe --always --dirty --abbrev=9 --match= 2>/dev/null) || commit=
            date=$(git log -1 --format=%cs 2>/dev/null) || date=
            mkdir -p "$2"
            printf 'enum BuildStamp {\\n    static let commit = "%s"\\n    static let date = "%s"\\n}\\n' "$commit" "$date" > "$2/new"
            cmp -s "$2/new" "$2/BuildStamp.swift" && rm "$2/new" || mv "$2/new" "$2/BuildStamp.swift"
            """
        return [
            .prebuildCommand(
                displayName: "Name the commit", executable: URL(fileURLWithPath: "/bin/sh"),
                arguments: ["-c", script, "sh", context.package.directoryURL.path, folder.path], outputFilesDirectory: folder)
        ]
    }
}

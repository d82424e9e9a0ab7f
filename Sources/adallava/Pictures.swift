import AdaImages
import AdaLLaVA
import ArgumentParser
import Foundation

/// Whether a damaged image is refused.
struct LenientFlag: ParsableArguments {
    @Flag(help: "Read a damaged image as Pillow reads it, with a warning, instead of refusing it.")
    var lenient = false

    var tolerance: ImageTolerance { lenient ? .asPillow : .strict }
}

/// Images of the command line, checked to be images before anything large is read.
/// - Throws: `ImageError`
func imageBatch(_ arguments: some Sequence<String>, tolerance: ImageTolerance) throws -> ImageBatch {
    let batch = ImageBatch(try arguments.map { try ImageSource(argument: $0) }, tolerance: tolerance)
    try batch.check()
    return batch
}

/// One image of the command line, for measurements: read even if it is damaged, with a warning.
/// - Throws: `ImageError`
func readImage(_ argument: String) throws -> RGBImage {
    let read = try ImageSource(argument: argument).image(tolerance: .asPillow)
    if let damage = read.damage { Console.shared.warn(damage) }
    return read.image
}

extension ImageBatch {
    /// Brings each image to the size of a checkpoint's tower as it is read.
    /// - Throws: `ImageError`, `GenerationError`
    func prepared(for checkpoint: Checkpoint) throws -> [PreparedImage] {
        if sources.isEmpty { return [] }
        let prepare = try ImagePreparation(checkpoint)
        try prepare.check(images: sources.count)
        return try prepared(with: prepare)
    }

    func prepared(with prepare: ImagePreparation) throws -> [PreparedImage] {
        try read { image in
            if let damage = image.damage { Console.shared.warn(damage) }
            return prepare(image.image)
        }
    }
}

extension Console {
    /// Says that an image was read although it is damaged.
    func warn(_ damage: ImageDamage) { message("adallava: warning: \(damage.description)") }
}

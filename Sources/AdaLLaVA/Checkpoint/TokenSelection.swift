import Foundation

/// Dropping image tokens inside the decoder, once, at prefill (FastV, Chen et al., 2024): the layers from ``layer`` on do not have those image tokens to
/// which the prompt's last token attended least in the layer before, averaged over heads. The other tokens keep their positions.
package struct FastV: Sendable, Hashable, CustomStringConvertible {
    /// The order in which image tokens are kept.
    package enum Ranking: String, Sendable, CaseIterable {
        /// By the attention of the prompt's last token.
        case attention
        /// Random, the same tokens for the same images: the baseline for `attention`.
        case random
    }

    /// The first layer without the dropped tokens, `K`: 1 or more.
    package var layer: Int
    /// The fraction of an image's tokens that is dropped, `R`, 0 ... 1, rounded down to whole tokens.
    package var ratio: Double
    /// The order in which image tokens are dropped.
    package var ranking: Ranking

    /// A choice given by value; the model checks it when it is loaded.
    package init(layer: Int, ratio: Double, ranking: Ranking = .attention) {
        (self.layer, self.ratio, self.ranking) = (layer, ratio, ranking)
    }

    /// Of so many image tokens those that are dropped.
    package func dropped(of imageTokens: Int) -> Int {
        // 0.7 * 10 is 7, whatever its last bit.
        min(max(Int(Double(imageTokens) * ratio + 1e-6), 0), imageTokens)
    }

    package var description: String {
        "fastv:k=\(layer),r=\(String(format: "%g", ratio))" + (ranking == .attention ? "" : ",by=\(ranking.rawValue)")
    }

    /// - Parameter text: the text after `fastv:`, such as `k=3,r=0.5`.
    /// - Returns: `nil` for a text that cannot be read.
    fileprivate init?(parsing text: Substring) {
        var (layer, ratio, ranking): (Int?, Double?, Ranking?) = (nil, nil, nil)
        for item in text.split(separator: ",", omittingEmptySubsequences: false) {
            let parts = item.split(separator: "=", omittingEmptySubsequences: false).map { $0.trimmingCharacters(in: .whitespaces) }
            guard parts.count == 2 else { return nil }
            switch parts[0] {
            case "k" where layer == nil:
                guard let value = Int(parts[1]), value >= 1 else { return nil }
                layer = value
            case "r" where ratio == nil:
                guard let value = Double(parts[1]), (0 ... 1).contains(value) else { return nil }
                ratio = value
            case "by" where ranking == nil:
                guard let value = Ranking(rawValue: parts[1]) else { return nil }
                ranking = value
            default: return nil
            }
        }
        guard let layer, let ratio else { return nil }
        self.init(layer: layer, ratio: ratio, ranking: ranking ?? .attention)
    }
}

/// Which image tokens are left out: between tower and projector, inside the decoder, or both.
public struct TokenSelection: Sendable, Hashable, CustomStringConvertible {
    /// Between tower and projector; `nil`: as the checkpoint says.
    package var tower: LlavaConfiguration.TokenSelection?
    /// Inside the decoder; `nil`: none.
    package var decoder: FastV?

    package init(tower: LlavaConfiguration.TokenSelection? = nil, decoder: FastV? = nil) { (self.tower, self.decoder) = (tower, decoder) }

    /// Parses the values of `--select`, given once or several times: `none`, `prumerge`, `prumerge+`, `fastv:k=3,r=0.5`.
    /// - Throws: an ``AdaLLaVAError``
    public init(parsing texts: [String]) throws {
        self.init()
        for text in texts {
            if text.hasPrefix("fastv:"), let fastV = FastV(parsing: text.dropFirst("fastv:".count)) {
                if decoder != nil { throw TokenSelectionError.twice(text) }
                decoder = fastV
            } else if let selection = LlavaConfiguration.TokenSelection(rawValue: text) {
                if tower != nil { throw TokenSelectionError.twice(text) }
                tower = selection
            } else {
                throw TokenSelectionError.unreadable(text)
            }
        }
    }

    public var description: String {
        let parts = [tower?.rawValue, decoder?.description].compactMap(\.self)
        return parts.isEmpty ? "as the checkpoint says" : parts.joined(separator: " and ")
    }
}

/// A selection of image tokens that cannot be read, or that a model cannot make.
package enum TokenSelectionError: AdaLLaVAError, Equatable {
    /// A text that is none of the forms.
    case unreadable(String)
    /// A second selection for the same place.
    case twice(String)
    /// A layer that is out of range, or has no attention.
    case layer(Int, expected: String, model: String)
    /// A model without a vision tower.
    case noVision(model: String)

    package var category: ErrorCategory { .usage }

    package var description: String {
        switch self {
        case .unreadable(let text):
            "the token selection '\(text.prefix(60))': expected none, prumerge, prumerge+, or fastv:k=K,r=R with a layer K of 1 or more and a share R from 0 to 1, such as fastv:k=3,r=0.5"
        case .twice(let text): "the token selection '\(text.prefix(60))': expected at most one of none, prumerge and prumerge+, and one fastv"
        case .layer(let layer, let expected, let model): "fastv:k=\(layer): expected \(expected), in \(model)"
        case .noVision(let model): "\(model) takes no images, so no image tokens can be selected"
        }
    }
}

extension ModelConfiguration {
    /// The same model with another selection of image tokens.
    /// - Parameter name: the model's name in messages.
    /// - Throws: ``TokenSelectionError``; ``CheckpointError/configuration(field:expected:found:file:)`` for a tower without attention to select by.
    package func selecting(_ selection: TokenSelection, name: String) throws -> ModelConfiguration {
        guard selection != TokenSelection() else { return self }
        guard var llava else { throw TokenSelectionError.noVision(model: name) }
        var changed = self
        if let tower = selection.tower {
            llava.tokenSelection = tower
            if let vision { try llava.validate(for: vision, file: name) }
        }
        if let fastV = selection.decoder {
            let layers = language.numHiddenLayers, most = adaptive?.numPrefixLayers ?? layers - 1
            guard (1 ... max(most, 1)).contains(fastV.layer), fastV.layer < layers else {
                let why = adaptive == nil ? "layers after it that have fewer tokens" : "its prefix layers, for the selection must not depend on the budget"
                throw TokenSelectionError.layer(fastV.layer, expected: "k from 1 to \(most), \(why)", model: name)
            }
            guard language.kind(fastV.layer - 1) != .convolution else {
                throw TokenSelectionError.layer(fastV.layer, expected: "k after a layer with attention, not a convolution", model: name)
            }
        }
        llava.fastV = selection.decoder
        changed.llava = llava
        return changed
    }
}

extension Checkpoint {
    /// The same checkpoint with another selection of image tokens.
    /// - Throws: ``TokenSelectionError``, ``CheckpointError``
    package func selecting(_ selection: TokenSelection) throws -> Checkpoint {
        var changed = self
        changed.configuration = try configuration.selecting(selection, name: name)
        return changed
    }
}

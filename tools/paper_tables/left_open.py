"""What the paper and the published code leave open, and what is chosen here."""

HEADING = "What the paper leaves open, and what was chosen"

POINTS = (
    "MACs (all tables): the printed figures contain no products of relations"
    " (dot, star, clique, scalar attention); 'honest MACs' count them. They are"
    " rounded twice, to two decimals and then to one: 2.0458 G is printed as"
    " 2.1.",
    "Table 4, clique: the order of the products in delta is not given: channel"
    " j * K + t is the product of taps j and t. A linear layer follows, so that"
    " any order makes the same networks.",
    "Tables 4 and 5, hidden widths: only those of the standard blocks are"
    " published. The others are the ones with which both printed figures come"
    " out: pairwise always C/16, with three layers C/16 twice; patchwise G, with"
    " three layers C/16, then G.",
    "Table 5, L: a BN and a ReLU come before the only linear layer, as before"
    " every other; without them both figures fit as well.",
    "Table 5, pairwise: the softmax over the footprint belongs to the weights,"
    " not to gamma, and stays in every row; no printed figure depends on it.",
    "Table 6, phi=psi, patchwise: the centre stays beside the taps, though it is"
    " one of them, so that only the transformation is shared; without it both"
    " figures fit as well. With phi=psi=beta they fit only without it.",
    "Table 8, absolute: what is concatenated is not defined. Here it is the"
    " position of each tap, without the difference from the centre's. The"
    " position of the centre alone fits the figures as well, but would be the"
    " same for all taps, and so does both together, but relative positions"
    " could be learned from those.",
    "Section 5.3, scalar attention: no number of groups and no form of the"
    " position is given. Here a group is the 8 channels that share a weight,"
    " the scores are not scaled, and the position is an embedding of the row"
    " and one of the column; others fit the figures as well. Honest MACs"
    " count the product of phi and psi + r once, as it is defined.",
    "Tables 4 to 8: which 50 images of each class were held out is not"
    " published; nobody can repeat these accuracies on the same images.",
    "Table 9: images are turned after they are resized and cut; before, the cut"
    " could differ by one pixel.",
    "Table 10: target class, loss and start of the attack are not published."
    " Here the target is drawn with a seed among the wrong classes, the loss is"
    " cross-entropy and the start is the image itself.",
)

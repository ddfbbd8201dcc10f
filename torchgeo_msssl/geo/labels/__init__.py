"""Labels of scenes as classes on any pixel grid."""
